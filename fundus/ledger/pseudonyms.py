"""Names that tell nothing: HMAC-SHA256 of a URI or a patient id under a key of the site's own."""

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
"""The environment variable that holds the key: never an argument, which others could see."""
SHORTEST = 16
"""Characters; a shorter key could be guessed."""


def key() -> bytes | None:
    """The site's key; None where the environment has none. Too short a key is refused."""
    text = os.environ.get(KEY, "")
    if text and len(text) < SHORTEST:
        raise ConfigurationError(f"{KEY} has fewer than {SHORTEST} characters: give a longer key")
    return text.encode() or None


class Secret:
    """A key on its way to other processes, where it arrives as the plain bytes.

    Ray Data tells its own logs what a stage is made with, and bytes as a list of numbers.
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
    """64 hexadecimal digits, the same for the same text and key."""
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()


NAME = "uris.json"
"""In a results place: what its rows carry, and a fingerprint of the key where there is one."""
PLAIN, PSEUDONYMS = "plain URIs", "pseudonyms"


def keep_to(place: Place, secret: bytes | None) -> None:
    """Note, at a place's first run, by which key its rows name objects; None: by plain URIs.

    ValueError, in one sentence, where it was another: every picture would be there twice.
    """
    place.put_if_absent(NAME, _noted(secret))
    check(place, secret)


def check(place: Place, secret: bytes | None) -> None:
    """As `keep_to`, and writes nothing."""
    found = place.read(NAME)
    if found is None or found[0] == _noted(secret):
        return
    carried, asked = json.loads(found[0])["rows"], PSEUDONYMS if secret else PLAIN
    other = f"not {asked}" if carried != asked else "made with another key"
    raise ConfigurationError(
        f"the rows in {place.uri} carry {carried}, {other}: give the results another place, or"
        " every picture would be there twice"
    )


def _noted(secret: bytes | None) -> bytes:
    noted = {"rows": PSEUDONYMS if secret else PLAIN}
    if secret:
        noted["key"] = pseudonym("the key of this place", secret)
    return json.dumps(noted).encode() + b"\n"


def write_map(file: Path, sources: Iterable[pa.RecordBatch]) -> None:
    """Write which pseudonym is which URI (columns uri and source), readable by its owner alone."""
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
