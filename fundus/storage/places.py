"""Where results lie: a folder or an S3 prefix, with the conditional writes that a ledger needs.

Conditional writes compare contents when they lose: a reply that was lost on the way looks like
another's victory. Whoever competes puts a token of its own into the content.
"""

import base64
import hashlib
from email.utils import parsedate_to_datetime
from pathlib import PurePosixPath
from typing import Any

from pyarrow import fs

from fundus.errors import ConfigurationError
from fundus.storage import s3
from fundus.storage.connection import connection
from fundus.storage.folder_place import FolderPlace
from fundus.storage.retry import PATIENT, StorageFailed, patiently
from fundus.storage.uris import S3, checked_name, join_s3, local_folder, scheme_of, split_s3


class S3Place:
    """A prefix of an S3 bucket."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket = bucket
        self.prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""

    @property
    def uri(self) -> str:
        """As s3:// URI, without a slash at its end."""
        return join_s3(self.bucket, self.prefix).rstrip("/")

    def join(self, name: str) -> "S3Place":
        """The place below this one."""
        return S3Place(self.bucket, self.prefix + checked_name(name))

    def read(self, name: str) -> tuple[bytes, str] | None:
        """(content, etag), or None where there is none."""

        def whole() -> tuple[bytes, str]:
            reply = s3.once("get_object", PATIENT, **self._object(name))
            try:
                return reply["Body"].read(), _etag(reply)
            except s3.FAILURES as error:
                raise s3.meaning(error) from error

        try:
            return patiently(whole, PATIENT)
        except s3.Refused as refused:
            if refused.http == 404:
                return None
            raise

    def put(self, name: str, data: bytes) -> str:
        """Write, whatever is there; the etag."""
        return _etag(s3.patient("put_object", PATIENT, **self._object(name), **_body(data)))

    def put_if_absent(self, name: str, data: bytes) -> str | None:
        """Write where nothing is; the etag, or None where another content is."""
        return self._put_if(name, data, IfNoneMatch="*")

    def put_if_match(self, name: str, data: bytes, etag: str) -> str | None:
        """Write over the content with this etag; the new one, or None where another content is."""
        return self._put_if(name, data, IfMatch=f'"{etag}"')

    def delete(self, name: str) -> None:
        """Remove; nothing happens where nothing is."""
        s3.patient("delete_object", PATIENT, **self._object(name))

    def list(self, prefix: str = "") -> list[str]:
        """Sorted names of all that lies below, at any depth, from `prefix` on; no hidden files."""
        names: list[str] = []
        more: dict[str, str] = {}
        while True:
            asked = {"Bucket": self.bucket, "Prefix": self.prefix + prefix}
            page = s3.patient("list_objects_v2", PATIENT, **asked, **more)
            keys = (item["Key"] for item in page.get("Contents", []))
            names += [key.removeprefix(self.prefix) for key in keys if not key.endswith("/")]
            if not page.get("IsTruncated"):
                return sorted(n for n in names if not PurePosixPath(n).name.startswith("."))
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def age_s(self, name: str) -> float | None:
        """Seconds since its last change, both by the server's clock; None: not there."""
        try:
            reply = s3.patient("head_object", PATIENT, **self._object(name))
        except s3.Refused as refused:
            if refused.http == 404:
                return None
            raise
        now = parsedate_to_datetime(reply["ResponseMetadata"]["HTTPHeaders"]["date"])
        return max(0.0, (now - reply["LastModified"]).total_seconds())

    def arrow(self) -> tuple[fs.FileSystem, str]:
        """pyarrow's way to the same prefix: (filesystem, path). Credentials by the same chain."""
        return connection(self.bucket).arrow(), f"{self.bucket}/{self.prefix}".rstrip("/")

    def delta_options(self) -> dict[str, str]:
        """What deltalake needs to reach this place exactly as boto3 does.

            place = open_place("s3://screening/results")
            table = DeltaTable(place.uri, storage_options=place.delta_options())
            write_deltalake(place.uri, rows, storage_options=place.delta_options())

        Endpoint, region, credentials, CA bundle, proxy and conditional PUTs, for deltalake 1.6 or
        later. They hold secrets: never log them. Temporary credentials end: ask again for each
        table that is opened. ConfigurationError where there are no credentials.
        """
        return connection(self.bucket).delta()

    def _object(self, name: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.prefix + checked_name(name)}

    def _put_if(self, name: str, data: bytes, **condition: str) -> str | None:
        try:
            return _etag(
                s3.patient("put_object", PATIENT, **self._object(name), **_body(data), **condition)
            )
        except s3.Refused as refused:
            if refused.http not in (404, 412):
                raise
        found = self.read(name)
        return found[1] if found and found[0] == data else None


Place = FolderPlace | S3Place


def place_at(uri: str) -> Place:
    """The place at a path, file:// or s3:// URI, not looked at. Other schemes are refused."""
    if scheme_of(uri) == S3:
        return S3Place(*split_s3(uri))
    if scheme_of(uri) not in ("", "file"):
        raise ConfigurationError(f"results lie in a folder or on s3://, not on {scheme_of(uri)}://")
    return FolderPlace(local_folder(uri))


def open_place(uri: str) -> Place:
    """The place at a path, file:// or s3:// URI; it need not exist yet, but its bucket must.

    ValueError, in a sentence, for any other, and where it cannot be listed.
    """
    place = place_at(uri)
    if isinstance(place, S3Place):
        asked = {"Bucket": place.bucket, "Prefix": place.prefix}
        try:
            s3.patient("list_objects_v2", PATIENT, **asked, MaxKeys=1)
        except StorageFailed as failed:
            raise ConfigurationError(f"nothing can lie in {place.uri}: {failed.reason}") from failed
    elif place.folder.exists() and not place.folder.is_dir():
        raise ConfigurationError(f"nothing can lie in {place.folder}: it is not a folder")
    return place


def _body(data: bytes) -> dict[str, Any]:
    """A body with its MD5: a bucket with Object Lock refuses one without, any server knows it."""
    digest = hashlib.md5(data, usedforsecurity=False).digest()
    return {"Body": data, "ContentMD5": base64.b64encode(digest).decode()}


def _etag(reply: dict) -> str:
    return reply["ETag"].strip('"')
