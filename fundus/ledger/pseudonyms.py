"""Pseudonyms: the HMAC-SHA256 of a URI or a patient id under the site's own key."""

import hashlib
import hmac
import json
import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fundus.errors import ConfigurationError
from fundus.storage.places import Place

KEY = "FUNDUS_PSEUDONYM_KEY"
"""The environment variable that holds the key. It is never an argument: others could see that."""
SHORTEST = 16
"""Characters; a shorter key could be guessed."""


def key() -> bytes | None:
    """The site's key; None if the environment has none. ConfigurationError if it is too short."""
    text = os.environ.get(KEY, "")
    if text and len(text) < SHORTEST:
        raise ConfigurationError(f"{KEY} has fewer than {SHORTEST} characters: give a longer key")
    return text.encode() or None


class Secret:
    """A key on its way to other processes, where it arrives as plain bytes.

    Ray Data writes the arguments of a stage into its logs, bytes as a list of numbers. Of this
    object it writes only the name.
    """

    def __init__(self, value: bytes | None) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "Secret"

    def __reduce__(self) -> tuple:
        return _plain, (self._value,)


def _plain(value: bytes | None) -> bytes | None:
    return value


def pseudonym(text: str, secret: bytes) -> str:
    """64 hexadecimal digits that depend on nothing but the text and the key."""
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()


NAME = "uris.json"
"""In a results location: the kind of names that its rows carry, and a fingerprint of the key."""
PLAIN, PSEUDONYMS = "plain URIs", "pseudonyms"


def keep_to(place: Place, secret: bytes | None) -> None:
    """Record, in the first run of a results location, how its rows name objects.

    Args:
        place: the results location.
        secret: the key of the pseudonyms; None for plain URIs.

    Raises:
        ConfigurationError: earlier runs named objects in another way, so that every picture would
            get a second row.
    """
    place.put_if_absent(NAME, _record(secret))
    check(place, secret)


def check(place: Place, secret: bytes | None) -> None:
    """As `keep_to`, but write nothing."""
    found = place.read(NAME)
    if found is None or found[0] == _record(secret):
        return
    carried, wanted = json.loads(found[0])["rows"], PSEUDONYMS if secret else PLAIN
    other = f"not {wanted}" if carried != wanted else "made with another key"
    raise ConfigurationError(
        f"the rows in {place.uri} carry {carried}, {other}, and every picture would get a second"
        " row: give another location as --results"
    )


def _record(secret: bytes | None) -> bytes:
    record = {"rows": PSEUDONYMS if secret else PLAIN}
    if secret:
        record["key"] = pseudonym("the key of this place", secret)
    return json.dumps(record).encode() + b"\n"


def write_map(file: Path, sources: Iterable[pa.RecordBatch]) -> None:
    """Write the URI of each pseudonym (columns uri and source) to a file for its owner alone."""
    schema = pa.schema([("uri", pa.large_string()), ("source", pa.large_string())])
    file.parent.mkdir(parents=True, exist_ok=True)
    with (
        os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as sink,
        pq.ParquetWriter(sink, schema) as writer,
    ):
        for batch in sources:
            writer.write_table(
                pa.Table.from_batches([batch]).select(["uri", "source"]).cast(schema)
            )
