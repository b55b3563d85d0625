"""A run: its archive, networks and settings, and whether it is finished.

    runs/<run_id>/run.json            archive, networks and settings; written first
    runs/<run_id>/inventory.parquet   every object that was listed
    runs/<run_id>/summary.json        written when the run is finished

A run writes its rows into the table's folder from the beginning, under the run's name. No reader
sees them until they are committed. A run that was killed is continued by the same command, with the
same archive, filters, networks and settings: it keeps its id and the rows that it has written.
"""

import json
import logging
import secrets
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from fundus.ledger import table
from fundus.storage.places import Place

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One run, finished or not."""

    run_id: str
    bundle: str
    """Digest of the bundle."""
    settings: str
    measuring: str = ""
    """`Bundle.measuring`, the digest of what decides a measurement."""
    source: str = ""
    """The archive and the filters."""
    extras: tuple[str, ...] = ()
    """Outputs beside the measurements: DICOM objects, pseudonyms of patients."""

    @property
    def folder(self) -> str:
        """The run's folder, relative to the results."""
        return f"runs/{self.run_id}"

    @property
    def rows(self) -> str:
        """The folder of the run's rows, relative to the results."""
        return f"{table.ROWS}/{self.run_id}"

    def continues(self, other: "Run") -> bool:
        """Whether both runs do the same work. Their bundles may differ if they measure alike."""
        same = replace(self, run_id=other.run_id, bundle=other.bundle, extras=other.extras)
        return same == other


def begin(place: Place, wanted: Run) -> Run:
    """Continue the newest unfinished run that does the wanted work, or begin a new one.

    Args:
        place: the results location.
        wanted: the work; its id is ignored.

    Returns:
        The run with its id. Ids sort by time: "20270131T235959Z-1a2b3c".
    """
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    for run in unfinished(place):
        if wanted.continues(run):
            run_id = run.run_id
            log.info("continuing run %s", run_id)
            break
    wanted = replace(wanted, run_id=run_id)
    place.put(f"{wanted.folder}/run.json", json.dumps(asdict(wanted)).encode() + b"\n")
    return wanted


def unfinished(place: Place) -> list[Run]:
    """The runs that have no summary yet, newest first."""
    names = place.list("runs/")
    finished = {name.split("/")[1] for name in names if name.endswith("/summary.json")}
    begun = {name.split("/")[1] for name in names if name.endswith("/run.json")}
    found = [read(place, run_id) for run_id in sorted(begun - finished, reverse=True)]
    return [run for run in found if run]


def read(place: Place, run_id: str) -> Run | None:
    """The run of this id; None if there is none."""
    found = place.read(f"runs/{run_id}/run.json")
    if found is None:
        return None
    known = json.loads(found[0])
    return Run(**known | {"extras": tuple(known["extras"])})


def finish(place: Place, run: Run, summary: bytes) -> None:
    """Delete the run's files that were not committed, then write the summary.

    Called after the commit. If another run has committed since, an older version of the table may
    still refer to these files: then `table.tidy` deletes them later.
    """
    found = table.opened(place)
    if not table.is_published(found, run.run_id) or table.is_newest(found, run.run_id):
        current = {f"{table.ROWS}/{path}" for path in table.paths(found)}
        for name in place.list(f"{run.rows}/"):
            if name not in current:
                place.delete(name)
    place.put(f"{run.folder}/summary.json", summary)
