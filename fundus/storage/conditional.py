"""Proof, before a night starts, that the results' storage honours conditional writes.

A server that passes `If-None-Match` or `If-Match` over lets two runs work all night, each of which
believes that it alone holds the results.
"""

import secrets

from fundus.errors import ConfigurationError
from fundus.storage.places import FolderPlace, Place
from fundus.storage.retry import StorageFailed

PROBES = "probes/"
"""Where probes lie, in a place; each is deleted at once."""


def check_conditional_writes(place: Place) -> None:
    """Write a small object where none is and over a known one, and once against each condition.

    Returns nothing where all four came out as they must. Raises ConfigurationError, with one
    sentence, where the server writes against a condition, refuses conditions or denies writing.
    A folder is not asked: its writes are conditional by a lock of this machine's file system.
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
        reason = f"{place.uri} does not take conditional writes: {failed.reason}"
        raise ConfigurationError(reason) from failed


def _probe(place: Place, name: str) -> None:
    # Contents differ, for who competes with an equal content has won.
    first = place.put_if_absent(name, b"first")
    if not first or place.put_if_absent(name, b"second"):
        raise _ignored(place, "If-None-Match")
    if not place.put_if_match(name, b"third", first) or place.put_if_match(name, b"fourth", first):
        raise _ignored(place, "If-Match")


def _ignored(place: Place, header: str) -> ConfigurationError:
    return ConfigurationError(
        f"the S3 server of {place.uri} does not honour {header}, so that two runs could write over"
        " each other: give a results place on a server that knows conditional writes"
    )
