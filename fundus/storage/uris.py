"""URIs of objects: percent-encoded paths, S3 buckets and keys, members of archives.

A member's URI is that of its archive, `!/` and its own path: `s3://clinic/day.zip!/eyes/1.jpg`.
Encoded paths hold no `!`, so the first `!/` ends the archive's part.
"""

import os
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit

from fundus.errors import ConfigurationError

MEMBER = "!/"
S3 = "s3"
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


def scheme_of(uri: str) -> str:
    """Its scheme; "" for a path of this machine. A URI that holds credentials is refused."""
    scheme, found, rest = uri.partition("://")
    if not found:
        return ""
    if scheme != "file":
        # Never echoed: what follows may be a secret.
        if set("@:") & set(rest.partition("/")[0]):
            raise ConfigurationError(
                f"a {scheme}:// URI holds credentials: give them by the environment"
            )
        if "?" in rest:
            raise ConfigurationError(f"a {scheme}:// URI takes no options after a question mark")
    return scheme


def encode(path: bytes | str) -> str:
    """A path for a URI: ASCII, `/` kept, parts of dots alone encoded, so that nothing climbs."""
    raw = path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path
    parts = quote_from_bytes(raw).split("/")
    return "/".join("%2E" * len(part) if part in (".", "..") else part for part in parts)


def decode(path: str) -> str:
    """The way back from `encode`; bytes that are no UTF-8 become surrogates."""
    return os.fsdecode(unquote_to_bytes(path))


def normal(name: str) -> str:
    """The URI of the object at a path or URI, as listings have it: encoded; local links resolved.

    Names of one object all give the same. ConfigurationError for a name that no file can have.
    """
    scheme, found, rest = name.partition("://")
    if found and scheme != "file":
        return f"{scheme}://{encode(decode(rest))}"
    path = Path("/", decode(rest.partition("/")[2])) if found else Path(name).expanduser()
    if "\0" in str(path):
        raise ConfigurationError("a name with a null character, which no file has")
    return "file://" + encode(os.fsencode(os.path.realpath(path)))


def lies_in(uri: str, folder: str) -> bool:
    """Whether it is the folder or prefix, or below it; both as paths or URIs."""
    return (normal(uri).rstrip("/") + "/").startswith(normal(folder).rstrip("/") + "/")


def split_s3(uri: str) -> tuple[str, str]:
    """(bucket, key) of an s3:// URI. Another URI, or one without a bucket, is refused."""
    if scheme_of(uri) != S3:
        raise ConfigurationError("not an s3:// URI")
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise ConfigurationError("an s3:// URI without a bucket: s3://bucket/prefix")
    return bucket, decode(key)


def join_s3(bucket: str, key: str) -> str:
    """The URI of an object."""
    return f"s3://{bucket}/{encode(key)}"


def split_member(uri: str) -> tuple[str, str]:
    """(URI of the archive, encoded path inside); (uri, "") for what lies in no archive."""
    archive, _, path = uri.partition(MEMBER)
    return archive, path


def is_archive(uri: str) -> bool:
    """Whether it is opened and its members listed in its place: told by its suffix."""
    return uri.lower().endswith(ARCHIVES)


def local_folder(uri: str) -> Path:
    """A path or file:// URI as an absolute path, links resolved. Other schemes are refused."""
    scheme = scheme_of(uri)
    if not scheme:
        return Path(uri).expanduser().resolve()
    if scheme != "file":
        raise ConfigurationError(f"{scheme}:// is no folder of this machine")
    return Path(local_path(uri)).resolve()


def local_path(uri: str) -> str:
    """The path that a file:// URI names."""
    return decode(urlsplit(uri).path)


def checked_name(name: str) -> str:
    """The name, where it lies below its place; ConfigurationError where it leads out."""
    if not name or name.startswith("/") or ".." in name.split("/"):
        raise ConfigurationError(f"{name!r} is no name below a place")
    return name
