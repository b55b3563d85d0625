"""URIs of objects: percent-encoded paths, S3 buckets and keys, members of containers.

The URI of a member is its container's URI, `!/` and its own path: `s3://clinic/day.zip!/eyes/1.jpg`.
Encoded paths contain no `!`, so the first `!/` ends the container's part.
"""

import os
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit

from fundus.errors import ConfigurationError

MEMBER = "!/"
S3 = "s3"
CONTAINERS = (".zip", ".tar", ".tar.gz", ".tgz")


def scheme_of(uri: str) -> str:
    """The scheme of a URI; "" for a local path.

    Raises:
        ConfigurationError: the URI contains credentials or options.
    """
    scheme, found, rest = uri.partition("://")
    if not found:
        return ""
    if scheme != "file":
        # The rest is never printed: it may be a secret.
        if set("@:") & set(rest.partition("/")[0]):
            raise ConfigurationError(
                f"a {scheme}:// URI holds credentials: set them in the environment instead"
            )
        if "?" in rest:
            raise ConfigurationError(
                f"a {scheme}:// URI takes no options after a question mark: leave them out"
            )
    return scheme


def encode(path: bytes | str) -> str:
    """Percent-encode a path for a URI, except for `/`.

    Parts that consist of dots are encoded too, so that no path leads out of its folder.
    """
    raw = path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path
    parts = quote_from_bytes(raw).split("/")
    return "/".join("%2E" * len(part) if part in (".", "..") else part for part in parts)


def decode(path: str) -> str:
    """The inverse of `encode`; bytes that are not UTF-8 become surrogates."""
    return os.fsdecode(unquote_to_bytes(path))


def normal(name: str) -> str:
    """The URI by which listings name the object at a path or URI: encoded, local links resolved.

    All names of one object give the same URI.

    Raises:
        ConfigurationError: a name with a null character, or a URI that `scheme_of` refuses.
    """
    scheme, found, rest = name.partition("://")
    if found and scheme != "file":
        return f"{scheme}://{encode(decode(rest))}"
    path = Path("/", decode(rest.partition("/")[2])) if found else Path(name).expanduser()
    if "\0" in str(path):
        raise ConfigurationError("a name with a null character, which no file has")
    return "file://" + encode(os.fsencode(os.path.realpath(path)))


def lies_in(uri: str, folder: str) -> bool:
    """Whether a path or URI is that of the folder or prefix, or lies below it."""
    return (normal(uri).rstrip("/") + "/").startswith(normal(folder).rstrip("/") + "/")


def split_s3(uri: str) -> tuple[str, str]:
    """(bucket, key) of an s3:// URI; ConfigurationError for another URI or one without a bucket."""
    if scheme_of(uri) != S3:
        raise ConfigurationError("not an s3:// URI: give s3://bucket/prefix")
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise ConfigurationError("an s3:// URI without a bucket: give s3://bucket/prefix")
    return bucket, decode(key)


def join_s3(bucket: str, key: str) -> str:
    """The URI of an object."""
    return f"s3://{bucket}/{encode(key)}"


def split_member(uri: str) -> tuple[str, str]:
    """(URI of the container, encoded path inside); (uri, "") if the object is in no container."""
    container, _, path = uri.partition(MEMBER)
    return container, path


def is_container(uri: str) -> bool:
    """Whether the suffix is that of a container, of which the members are listed instead."""
    return uri.lower().endswith(CONTAINERS)


def local_folder(uri: str) -> Path:
    """A path or file:// URI as an absolute path with links resolved.

    Raises:
        ConfigurationError: a URI of another scheme.
    """
    scheme = scheme_of(uri)
    if not scheme:
        return Path(uri).expanduser().resolve()
    if scheme != "file":
        raise ConfigurationError(f"{scheme}:// is not a folder of this machine: give a local path")
    return Path(local_path(uri)).resolve()


def local_path(uri: str) -> str:
    """The path of a file:// URI."""
    return decode(urlsplit(uri).path)


def checked_name(name: str) -> str:
    """Return the name of an object below a location; ConfigurationError if it leads out of it."""
    if not name or name.startswith("/") or ".." in name.split("/"):
        raise ConfigurationError(f"{name!r} is not a path below its location: leave out / and ..")
    return name
