"""`current.json`: which files hold the newest row of every object. Readers start here.

The pointer is swapped by one conditional write, after all files that it names are there: a reader
sees the runs that are finished, whole, and never a half.
"""

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from fundus.storage.places import Place

NAME = "current.json"
FORMAT = 1


class LedgerError(RuntimeError):
    """The results place is not as this version wrote it; the message is one sentence."""


@dataclass(frozen=True)
class File:
    """One Parquet file of rows, sorted by URI."""

    path: str
    """Relative to the results."""
    rows: int
    bytes: int
    run_id: str
    bundle: str
    """Digest."""
    settings: str
    first: str
    """Lowest URI in it."""
    last: str
    """Highest."""


@dataclass(frozen=True)
class Current:
    """The finished runs, oldest first, and the files that together hold one row a picture."""

    runs: tuple[str, ...] = ()
    files: tuple[File, ...] = ()
    owner: str = ""
    """Of the run that swapped last: its claim's token, which makes a lost reply recognisable."""
    published: str = ""
    """When, UTC."""

    def with_run(self, run_id: str, files: tuple[File, ...], owner: str) -> "Current":
        """The pointer after a run: these files instead of the present ones."""
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        return replace(self, runs=(*self.runs, run_id), files=files, owner=owner, published=now)

    def dumped(self) -> bytes:
        """JSON."""
        return json.dumps({"format": FORMAT} | asdict(self), indent=1).encode() + b"\n"


def read(place: Place) -> tuple[Current, str | None]:
    """The pointer and its etag; an empty one and None where nothing has been published."""
    found = place.read(NAME)
    if found is None:
        return Current(), None
    content, etag = found
    try:
        known = json.loads(content)
        if known.pop("format") != FORMAT:
            raise LedgerError(f"{place.uri}/{NAME} is of a format that this version does not know")
        files = tuple(File(**one) for one in known.pop("files"))
        return Current(**known | {"files": files, "runs": tuple(known["runs"])}), etag
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(f"{place.uri}/{NAME} cannot be read: {error}") from error


def swap(place: Place, current: Current, etag: str | None) -> bool:
    """Replace the pointer that had this etag; False if another run has replaced it meanwhile."""
    content = current.dumped()
    if etag is None:
        return place.put_if_absent(NAME, content) is not None
    return place.put_if_match(NAME, content, etag) is not None
