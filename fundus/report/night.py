"""After a run: compare it with earlier runs and the source, and write its report."""

from pathlib import Path

from fundus.drift import nights, reference
from fundus.ledger import table
from fundus.report import run
from fundus.storage.places import Place


def show(
    place: Place, config: run.Config, bundle: str, uri_map: Path | None = None
) -> tuple[run.Written, nights.Drift]:
    """Compare a run with earlier runs and with the bundle's source, and write its report.

    Args:
        place: results with at least one finished run.
        config: which run, and what the report shows.
        bundle: folder or s3:// URI of the bundle that screened.
        uri_map: the file with the URI of each pseudonym, as screening wrote it.

    Returns:
        The report, and the result of the comparison, whose sentence is also in the run's
        `summary.json`.

    Raises:
        ConfigurationError: no run has been published, or none has the id that was given.
    """
    source = reference.load(bundle)
    rows = table.read(place.uri, list(nights.COLUMNS))
    run_id = config.run_id or max(rows["run_id"].to_pylist(), default="")
    drift = nights.look(rows, run_id, bundle=bundle, source=source)
    nights.note(place, run_id, drift)
    written = run.write(
        place,
        config,
        source_vcdr=nights.source_vcdr(rows, run_id, source),
        drift=nights.for_page(drift),
        sources=run.sources(uri_map) if uri_map else None,
    )
    return written, drift


def lines(written: run.Written, drift: nights.Drift) -> list[str]:
    """The lines for a terminal: whether the pictures changed, and how to open the page."""
    command = [f"  {drift.command}"] if drift.command else []
    return [
        drift.sentence,
        *command,
        f"{written.suspects} suspects, {written.pictures} eyes with their picture",
        f"report: {written.uri}",
        _how_to_open(written.uri),
    ]


def _how_to_open(uri: str) -> str:
    if uri.startswith("s3://"):
        folder = uri.rpartition("/")[0]
        return f"  aws s3 cp --recursive {folder} report, then open report/index.html in a browser"
    return "  open this file in a browser; it needs no server"
