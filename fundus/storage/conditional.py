"""Check, before a night starts, that the storage of the results honours conditional writes.

On a server that ignores `If-None-Match` or `If-Match`, two runs can work all night, and each
believes that it alone holds the results.
"""

import secrets

from fundus.errors import ConfigurationError
from fundus.storage.places import FolderPlace, Place
from fundus.storage.retry import StorageFailed

PROBES = "probes/"
"""Prefix of the probes below a location; each is deleted at once."""


def check_conditional_writes(place: Place) -> None:
    """Write a small object under each condition, once where it holds and once where it does not.

    A folder is not checked: its conditional writes use a lock of the file system.

    Raises:
        ConfigurationError: the server writes against a condition, refuses conditions or denies
            writing.
    """
    if isinstance(place, FolderPlace):
        return
    name = f"{PROBES}{secrets.token_hex(8)}"
    try:
        try:
            _probe(place, name)
        finally:
            place.delete(name)
    except StorageFailed as failed:
        raise ConfigurationError(
            f"{place.uri} does not take conditional writes ({failed.reason}): give --results a"
            " location that may be written to, on a server with conditional writes"
        ) from failed


def _probe(place: Place, name: str) -> None:
    # The contents differ, because a writer that competes with equal content counts as the winner.
    first = place.put_if_absent(name, b"first")
    if not first or place.put_if_absent(name, b"second"):
        raise _ignored(place, "If-None-Match")
    if not place.put_if_match(name, b"third", first) or place.put_if_match(name, b"fourth", first):
        raise _ignored(place, "If-Match")


def _ignored(place: Place, header: str) -> ConfigurationError:
    return ConfigurationError(
        f"the S3 server of {place.uri} does not honour {header}, so that two runs could overwrite"
        " each other: give --results a location on a server with conditional writes"
    )
