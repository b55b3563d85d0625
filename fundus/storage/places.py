"""Locations of results: a folder or an S3 prefix, with the conditional writes that a ledger needs.

A conditional write that fails compares the contents: if the reply to a successful write was lost,
the repeated write fails although its content is stored. Competing writers therefore put tokens of
their own into the content.
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
    """A prefix of an S3 bucket. Failures raise StorageFailed after patient retries."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket = bucket
        self.prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""

    @property
    def uri(self) -> str:
        """The prefix as an s3:// URI, without a slash at its end."""
        return join_s3(self.bucket, self.prefix).rstrip("/")

    def join(self, name: str) -> "S3Place":
        """The location of this name below this one."""
        return S3Place(self.bucket, self.prefix + checked_name(name))

    def read(self, name: str) -> tuple[bytes, str] | None:
        """(content, etag) of an object; None if there is none."""

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
        """Write an object, over an existing one too, and return its etag."""
        return _etag(s3.patient("put_object", PATIENT, **self._object(name), **_body(data)))

    def put_if_absent(self, name: str, data: bytes) -> str | None:
        """Write a new object and return its etag; None if one with other content exists."""
        return self._put_if(name, data, IfNoneMatch="*")

    def put_if_match(self, name: str, data: bytes, etag: str) -> str | None:
        """Overwrite the object of this etag and return the new one; None if it has changed."""
        return self._put_if(name, data, IfMatch=f'"{etag}"')

    def delete(self, name: str) -> None:
        """Delete an object, if there is one."""
        s3.patient("delete_object", PATIENT, **self._object(name))

    def list(self, prefix: str = "") -> list[str]:
        """Sorted names of all objects below, at any depth, that begin with `prefix`.

        Hidden files are left out.
        """
        names: list[str] = []
        more: dict[str, str] = {}
        while True:
            request = {"Bucket": self.bucket, "Prefix": self.prefix + prefix}
            page = s3.patient("list_objects_v2", PATIENT, **request, **more)
            keys = (item["Key"] for item in page.get("Contents", []))
            names += [key.removeprefix(self.prefix) for key in keys if not key.endswith("/")]
            if not page.get("IsTruncated"):
                return sorted(n for n in names if not PurePosixPath(n).name.startswith("."))
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def age_s(self, name: str) -> float | None:
        """Seconds since an object's last change, by the server's clock; None if it is missing."""
        try:
            reply = s3.patient("head_object", PATIENT, **self._object(name))
        except s3.Refused as refused:
            if refused.http == 404:
                return None
            raise
        now = parsedate_to_datetime(reply["ResponseMetadata"]["HTTPHeaders"]["date"])
        return max(0.0, (now - reply["LastModified"]).total_seconds())

    def arrow(self) -> tuple[fs.FileSystem, str]:
        """The prefix for pyarrow: (filesystem, path)."""
        return connection(self.bucket).arrow(), f"{self.bucket}/{self.prefix}".rstrip("/")

    def delta_options(self) -> dict[str, str]:
        """deltalake's `storage_options` to reach this location exactly as boto3 does.

            place = open_place("s3://screening/results")
            table = DeltaTable(place.uri, storage_options=place.delta_options())
            write_deltalake(place.uri, rows, storage_options=place.delta_options())

        They set endpoint, region, credentials, CA bundle, proxy and conditional PUTs, for deltalake
        1.6 or later. They contain secrets: never log them. Temporary credentials expire: call this
        again for each table that is opened.

        Raises:
            ConfigurationError: there are no credentials.
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
    """The location of a path, file:// or s3:// URI, without a request to the storage.

    Raises:
        ConfigurationError: a URI of another scheme.
    """
    if scheme_of(uri) == S3:
        return S3Place(*split_s3(uri))
    if scheme_of(uri) not in ("", "file"):
        raise ConfigurationError(
            f"results cannot be stored on {scheme_of(uri)}://: give a folder or s3://bucket/prefix"
        )
    return FolderPlace(local_folder(uri))


def open_place(uri: str) -> Place:
    """The location of a path, file:// or s3:// URI. It need not exist yet, but its bucket must.

    Raises:
        ConfigurationError: a URI of another scheme, a file, or a bucket that cannot be listed.
    """
    place = place_at(uri)
    if isinstance(place, S3Place):
        request = {"Bucket": place.bucket, "Prefix": place.prefix}
        try:
            s3.patient("list_objects_v2", PATIENT, **request, MaxKeys=1)
        except StorageFailed as failed:
            raise ConfigurationError(f"{place.uri} cannot be used: {failed.reason}") from failed
    elif place.folder.exists() and not place.folder.is_dir():
        raise ConfigurationError(f"{place.folder} cannot be used: it is not a folder")
    return place


def _body(data: bytes) -> dict[str, Any]:
    """A body with its MD5, which any server knows and a bucket with Object Lock requires."""
    digest = hashlib.md5(data, usedforsecurity=False).digest()
    return {"Body": data, "ContentMD5": base64.b64encode(digest).decode()}


def _etag(reply: dict) -> str:
    return reply["ETag"].strip('"')
