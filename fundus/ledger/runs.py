"""A run: what it is about, and whether it is finished.

    runs/<run_id>/run.json            what the run is about, written first
    runs/<run_id>/inventory.parquet   every object that was listed
    runs/<run_id>/leftovers.json      files that are to be deleted once the run is published
    runs/<run_id>/summary.json        written when the run is finished

A run's files of rows lie in the table's folder from the beginning, under the run's name; no reader
sees them until they are committed. A run that was killed is continued, under its id and with the
rows that it has written, by the same command: the same archive, filters, networks and settings.
"""

import json
import logging
import secrets
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from fundus.ledger import table
from fundus.storage.places import Place

log = logging.getLogger(__name__)

UNLIKE = ("run_id", "bundle", "extras")
"""What two attempts at the same run may differ in."""


@dataclass(frozen=True)
class Run:
    """One run, finished or not."""

    run_id: str
    bundle: str
    """Digest."""
    settings: str
    measuring: str = ""
    """Digest of what decides a measurement: see `Bundle.measuring`."""
    source: str = ""
    """The archive and the filters."""
    extras: tuple[str, ...] = ()
    """What was made beside the measurements: DICOM objects, pseudonyms of patients."""

    @property
    def folder(self) -> str:
        """Relative to the results."""
        return f"runs/{self.run_id}"

    @property
    def rows(self) -> str:
        """Where its files of rows lie, relative to the results."""
        return f"{table.ROWS}/{self.run_id}"


def new_run_id() -> str:
    """Sorts by time: "20270131T235959Z-1a2b3c"."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def begin(place: Place, wanted: Run) -> Run:
    """The newest unfinished run that is the wanted one but for its id, or a new one."""
    for run in unfinished(place):
        if _likeness(run) == _likeness(wanted):
            log.info("continuing run %s", run.run_id)
            wanted = replace(wanted, run_id=run.run_id)
            break
    else:
        wanted = replace(wanted, run_id=new_run_id())
    place.put(f"{wanted.folder}/run.json", json.dumps(asdict(wanted)).encode() + b"\n")
    return wanted


def unfinished(place: Place) -> list[Run]:
    """Runs that were begun and have no summary, newest first."""
    names = place.list("runs/")
    finished = {name.split("/")[1] for name in names if name.endswith("/summary.json")}
    begun = {name.split("/")[1] for name in names if name.endswith("/run.json")}
    found = [read(place, run_id) for run_id in sorted(begun - finished, reverse=True)]
    return [run for run in found if run]


def read(place: Place, run_id: str) -> Run | None:
    """A run by its id."""
    found = place.read(f"runs/{run_id}/run.json")
    if found is None:
        return None
    known = json.loads(found[0])
    return Run(**known | {"extras": tuple(known["extras"])})


def note_leftovers(place: Place, run: Run, names: list[str]) -> None:
    """Before the commit: which of the run's files it leaves out."""
    place.put(f"{run.folder}/leftovers.json", json.dumps(names).encode() + b"\n")


def finish(place: Place, run: Run, summary: bytes) -> None:
    """After the commit: delete what it left out, and write the summary last."""
    found = place.read(f"{run.folder}/leftovers.json")
    for name in json.loads(found[0]) if found else ():
        place.delete(name)
    place.put(f"{run.folder}/summary.json", summary)


def _likeness(run: Run) -> dict[str, object]:
    return {name: value for name, value in asdict(run).items() if name not in UNLIKE}
