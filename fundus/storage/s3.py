"""S3: one client per process and configuration, by the standard AWS chain, and its errors."""

import functools
import os
from pathlib import Path
from threading import Lock
from typing import Any

import boto3
import botocore.exceptions as failures
import botocore.session
from botocore.config import Config
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from fundus.errors import ConfigurationError
from fundus.storage.retry import PATIENT, Passing, Retry, StorageFailed, patiently

FAILURES = (failures.ClientError, failures.BotoCoreError, ResponseParserError, HTTPError)
"""Exceptions of boto3 for a request, a reply or a body that fails."""
BROKEN = (
    failures.ConnectionError,
    failures.HTTPClientError,
    failures.IncompleteReadError,
    ResponseParserError,
    HTTPError,
)
CA = "CA_BUNDLE"
"""Suffix of the environment variables that name a file of certificates."""
CONNECTIONS = 32
CONNECT_S = 10
PASSING_HTTP = {408, 409, 425, 429, 500, 502, 503, 504}
"""409: another conditional write of the same object is in progress."""
PASSING_CODES = {"SlowDown", "RequestTimeout", "InternalError", "Throttling", "ThrottlingException"}
MEANINGS = {
    403: "access to it is denied",
    404: "it is not there",
    412: "it changed after it was listed",
    416: "it changed after it was listed",
}
CODES = {
    "NoSuchBucket": "the bucket does not exist",
    "InvalidObjectState": "it lies in cold storage and must be restored first",
}


class Refused(StorageFailed):
    """The server refused the request and would refuse it again."""

    def __init__(self, reason: str, http: int = 0) -> None:
        super().__init__(reason)
        self.http = http
        """HTTP status of the reply, such as 403, 404 or 412; 0 if there was no reply."""


def client(stall_s: float = Retry.stall_s) -> Any:
    """This process's boto3 client for the present environment; threads share it."""
    return _now(stall_s)[0]


def session() -> botocore.session.Session:
    """The botocore session of `client`, with its settings and credentials."""
    return _now(Retry.stall_s)[1]


def certificates(of: botocore.session.Session) -> str | None:
    """The file of certificates that boto3 trusts; None for those that come with boto3."""
    return of.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")


def _now(stall_s: float) -> tuple[Any, botocore.session.Session]:
    known = tuple(item for item in os.environ.items() if item[0].upper().endswith(("_PROXY", CA)))
    known += tuple(item for item in os.environ.items() if item[0].startswith("AWS_"))
    with _lock:
        return _client(os.getpid(), stall_s, known)


_lock = Lock()


@functools.lru_cache(maxsize=8)
def _client(
    pid: int, stall_s: float, environment: tuple[tuple[str, str], ...]
) -> tuple[Any, botocore.session.Session]:
    config = Config(
        # The retries are ours: botocore's do not cover the body.
        retries={"total_max_attempts": 1},
        max_pool_connections=CONNECTIONS,
        connect_timeout=CONNECT_S,
        read_timeout=stall_s,
        # Checksums that older servers refuse are left out where S3 does not demand them.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    core = botocore.session.get_session()
    try:
        if (ca := certificates(core)) and not Path(ca).exists():
            raise ConfigurationError(
                f"S3 is not configured: the CA bundle {ca} is not there; correct its path in"
                " AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE or the AWS profile"
            )
        return boto3.session.Session(botocore_session=core).client("s3", config=config), core
    except failures.BotoCoreError as error:
        raise ConfigurationError(f"S3 is not configured: {error}") from None


def once(operation: str, retry: Retry = PATIENT, **arguments: Any) -> dict[str, Any]:
    """Send one request, such as "get_object", and return the reply.

    Raises:
        Passing: a failure that may pass.
        Refused: any other failure.
    """
    try:
        return getattr(client(retry.stall_s), operation)(**arguments)
    except FAILURES as error:
        raise meaning(error) from error


def patient(operation: str, retry: Retry = PATIENT, **arguments: Any) -> dict[str, Any]:
    """As `once`, with retries of failures that may pass."""
    return patiently(lambda: once(operation, retry, **arguments), retry)


def meaning(error: Exception) -> StorageFailed:
    """An exception of boto3 as `Passing` or `Refused`, with a reason that names no credentials."""
    if isinstance(error, failures.ClientError):
        return _reply(error.response)
    if isinstance(error, BROKEN):
        return Passing(f"the connection to the storage failed ({type(error).__name__})")
    if isinstance(error, failures.NoCredentialsError | failures.PartialCredentialsError):
        return Refused("no AWS credentials were found")
    return Refused(f"S3 cannot be asked ({type(error).__name__})")


def _reply(response: Any) -> StorageFailed:
    about = response.get("ResponseMetadata", {})
    http, code = about.get("HTTPStatusCode", 0), response["Error"].get("Code", "")
    if http in PASSING_HTTP or code in PASSING_CODES:
        wait = about.get("HTTPHeaders", {}).get("retry-after", "")
        return Passing(f"the storage is busy or at fault ({http} {code})", _seconds(wait))
    sentence = CODES.get(code) or MEANINGS.get(http, "the storage refuses")
    return Refused(f"{sentence} ({code})" if code and not code.isdigit() else sentence, http)


def _seconds(retry_after: str) -> float:
    """Retry-After in seconds; 0 for its other form, a date, which is rare."""
    return float(retry_after) if retry_after.isdigit() else 0.0
