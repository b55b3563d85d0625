#!/usr/bin/env python
"""Screen an archive: one Parquet row for every picture, or the reason why it has no measures.

    python jobs/screen.py --archive photographs --results results
    python jobs/screen.py --archive s3://clinic/2027 --results s3://screening/results
    python jobs/screen.py --archive photographs --results results --status
    ray job submit -- jobs/screen.py --archive s3://clinic/2027 --results s3://screening/results

The archive is a folder, s3://bucket/prefix (gs://, az:// where fsspec's plugin is installed) or
@FILE, a text file with a URI a line; zip and tar files in it are looked into. <results>/rows is
a Delta table with the newest row of every picture. The same command again does what is missing,
after a kill too. A page for graders is written beside the rows, see jobs/report.py. Credentials
come from the standard AWS chain;
pseudonyms from the key in the environment variable FUNDUS_PSEUDONYM_KEY.

With a site file (docs/site.toml), arguments that it holds may be left out.

Exit codes: 0 every object has its row, failed pictures included; 2 bad configuration; 3 done, but
more failures than --max-failure-rate; 5 another run holds the results.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fundus import site
from fundus.errors import ConfigurationError, full_disk_explained
from fundus.ledger.claim import ClaimHeld
from fundus.models import bundle as bundles
from fundus.report import night, run
from fundus.runtime.session import ray_session
from fundus.screening import pipeline, report, standing
from fundus.screening.settings import GRADABILITY, Screening
from fundus.storage.places import open_place

HELD = 5


@dataclass(frozen=True)
class Config:
    """What the command line asks for."""

    screening: Screening
    bundle: bundles.Bundle
    bundle_uri: str
    """Where the bundle lies."""
    status: bool
    """Only tell how things stand."""
    report: bool
    """Write the report of the run beside its rows."""
    site: str
    """The site's name for the report; "" without one."""
    max_failure_rate: float
    """Share of failed rows from which the exit code is 3."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_failure_rate <= 1:
            raise ConfigurationError(
                f"--max-failure-rate {self.max_failure_rate}: give a share, 0 to 1"
            )


def parse(arguments: Sequence[str] | None = None) -> Config:
    """Command line to a checked configuration."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        epilog=(__doc__ or "").split("\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--archive", metavar="URI", help="where the photographs are")
    add("--results", metavar="URI", help="folder or s3:// place for the rows")
    add("--bundle", metavar="URI", help="default: the package's")
    add(
        "--status", action="store_true", help="say what is done, missing and failed; screen nothing"
    )
    add("--retry-failed", action="store_true", help="screen failed objects anew")
    add("--max-failure-rate", type=float, default=1.0, metavar="SHARE", help="then exit code 3")
    add("--no-report", dest="report", action="store_false", help="write no page for graders")
    add(
        "--precropped",
        action=argparse.BooleanOptionalAction,
        help="the pictures are disc crops already",
    )
    add("--gradability", choices=GRADABILITY, help="of pictures that show little; default: advise")
    add("--limit", type=int, metavar="N", help="only the first N objects")
    add("--suffix", action="append", default=[], help="only names that end so; may be repeated")
    add("--glob", help="only paths below the archive that match")
    add("--modified-since", type=_moment, metavar="TIME", help="2027-01-31, or with T12:00:00")
    add("--system-files", action="store_true", help="list Thumbs.db, ._* and their like, too")
    add("--take-over", action="store_true", help="take the results from a run known to be dead")
    add(
        "--pseudonymise-uris",
        dest="pseudonyms",
        action=argparse.BooleanOptionalAction,
        help="rows carry an HMAC instead of the URI",
    )
    add("--uri-map", type=Path, metavar="FILE", help="write which pseudonym is which URI")
    add("--dicom-seg", metavar="URI", help="write DICOM Segmentations and Structured Reports here")
    given = site.parse(
        parser,
        arguments,
        needed=("archive", "results"),
        bundle=bundles.default_folder(),
        gradability="advise",
        precropped=False,
        pseudonyms=False,
    )
    screening = Screening(
        archive=given.archive,
        results=given.results,
        precropped=given.precropped,
        limit=given.limit,
        suffixes=tuple(given.suffix),
        glob=given.glob,
        modified_since=given.modified_since,
        system_files=given.system_files,
        gradability=given.gradability,
        retry_failed=given.retry_failed,
        take_over=given.take_over,
        pseudonymise_uris=given.pseudonyms,
        uri_map=given.uri_map,
        dicom_out=given.dicom_seg,
    )
    bundle = bundles.load(given.bundle)
    screening.check(bundle)
    return Config(
        screening=screening,
        bundle=bundle,
        bundle_uri=str(given.bundle),
        status=given.status,
        report=given.report,
        site=given.name,
        max_failure_rate=given.max_failure_rate,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, screen, say what came out."""
    try:
        config = parse(arguments)
        if config.status:
            found = standing.standing(
                config.screening, config.screening.results, config.bundle.measuring
            )
            print(standing.readable(found))
            return 0
        with full_disk_explained(), ray_session():
            summary = pipeline.screen(
                config.screening, config.bundle, print, config.max_failure_rate
            )
    except ClaimHeld as error:
        print(f"screen: {error}", file=sys.stderr)
        return HELD
    except ConfigurationError as error:
        print(f"screen: {error}", file=sys.stderr)
        return 2
    print(report.readable(summary))
    if config.report and summary.rows:
        place, uri_map = open_place(config.screening.results), config.screening.uri_map
        about = run.Config(summary.run_id, site=config.site)
        print(*night.lines(*night.show(place, about, config.bundle_uri, uri_map)), sep="\n")
    if summary.exit_code:
        print(
            f"screen: {summary.failure_rate:.1%} of the rows failed, more than the"
            f" {config.max_failure_rate:.1%} of --max-failure-rate",
            file=sys.stderr,
        )
    return summary.exit_code


def _moment(text: str) -> datetime:
    """An ISO 8601 day or time; UTC where it says no zone."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


if __name__ == "__main__":
    sys.exit(main())
