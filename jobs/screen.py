#!/usr/bin/env python
"""Screen an archive: one row per picture, with its measures or the reason why it has none.

    python jobs/screen.py --archive photographs --results results
    python jobs/screen.py --archive s3://clinic/2027 --results s3://screening/results
    python jobs/screen.py --archive photographs --results results --status
    ray job submit -- jobs/screen.py --archive s3://clinic/2027 --results s3://screening/results

The archive is a folder, s3://bucket/prefix (gs:// and az:// if fsspec's plugin is installed) or
@FILE, a text file with one URI per line. Members of zip and tar files are screened too.
<results>/rows is a Delta table with the newest row of every picture. Run the same command again to
screen what is missing, also after a kill. A report for graders is written beside the rows
(jobs/report.py). Credentials come from the standard AWS chain, and the key of pseudonyms from the
environment variable FUNDUS_PSEUDONYM_KEY.

With a site file (docs/site.toml), arguments that it holds may be left out.

Exit codes: 0 every object has its row, including failed pictures; 2 bad configuration; 3 done, but
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
from fundus.models.turns import PROFILES
from fundus.runtime.session import ray_session
from fundus.screening import pipeline, report, status
from fundus.screening.settings import GRADABILITY, Screening
from fundus.storage.places import open_place

HELD = 5


@dataclass(frozen=True)
class Config:
    """The checked command line."""

    screening: Screening
    bundle: bundles.Bundle
    bundle_uri: str
    """Folder or s3:// URI of the bundle."""
    status: bool
    """Print the status of the results and screen nothing."""
    report: bool
    """Write the report of the run beside its rows."""
    site: str
    """The site's name for the report; "" without one."""
    max_failure_rate: float
    """Share of failed rows above which the exit code is 3."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_failure_rate <= 1:
            raise ConfigurationError(
                f"--max-failure-rate {self.max_failure_rate}: give a share from 0 to 1"
            )


def parse(arguments: Sequence[str] | None = None) -> Config:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        epilog=(__doc__ or "").split("\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--archive", metavar="URI", help="folder, s3:// URI or list of the photographs")
    add("--results", metavar="URI", help="folder or s3:// URI for the rows")
    add("--bundle", metavar="URI", help="default: the package's")
    add(
        "--status",
        action="store_true",
        help="print what is done, missing and failed; screen nothing",
    )
    add("--retry-failed", action="store_true", help="screen failed objects again")
    add("--max-failure-rate", type=float, default=1.0, metavar="SHARE", help="above it: exit 3")
    add("--no-report", dest="report", action="store_false", help="write no report for graders")
    add(
        "--precropped",
        action=argparse.BooleanOptionalAction,
        help="the pictures are disc crops already",
    )
    add("--gradability", choices=GRADABILITY, help="pictures of poor quality; default: advise")
    add("--profile", choices=PROFILES, help="passes per picture: all, or a quarter; default: exact")
    add("--limit", type=int, metavar="N", help="only the first N objects")
    add("--suffix", action="append", default=[], help="only names with this end; may be repeated")
    add("--glob", help="only paths below the archive that match")
    add("--modified-since", type=_moment, metavar="TIME", help="2027-01-31, or with T12:00:00")
    add("--system-files", action="store_true", help="also list Thumbs.db, ._* and the like")
    add("--take-over", action="store_true", help="take the results from a run known to be dead")
    add(
        "--pseudonymise-uris",
        dest="pseudonyms",
        action=argparse.BooleanOptionalAction,
        help="rows carry an HMAC instead of the URI",
    )
    add("--uri-map", type=Path, metavar="FILE", help="write the URI of each pseudonym")
    add("--dicom-seg", metavar="URI", help="write DICOM Segmentations and Structured Reports here")
    args = site.parse(
        parser,
        arguments,
        needed=("archive", "results"),
        bundle=bundles.default_folder(),
        gradability="advise",
        profile="exact",
        precropped=False,
        pseudonyms=False,
    )
    screening = Screening(
        archive=args.archive,
        results=args.results,
        precropped=args.precropped,
        limit=args.limit,
        suffixes=tuple(args.suffix),
        glob=args.glob,
        modified_since=args.modified_since,
        system_files=args.system_files,
        gradability=args.gradability,
        profile=args.profile,
        retry_failed=args.retry_failed,
        take_over=args.take_over,
        pseudonymise_uris=args.pseudonyms,
        uri_map=args.uri_map,
        dicom_out=args.dicom_seg,
    )
    bundle = bundles.load(args.bundle)
    screening.check(bundle)
    return Config(
        screening=screening,
        bundle=bundle,
        bundle_uri=str(args.bundle),
        status=args.status,
        report=args.report,
        site=args.name,
        max_failure_rate=args.max_failure_rate,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, screen, print the summary; the exit code."""
    try:
        config = parse(arguments)
        if config.status:
            found = status.look_up(
                config.screening, config.screening.results, config.bundle.measuring
            )
            print(status.readable(found))
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
        print(*_write_report(config, summary.run_id), sep="\n")
    if summary.exit_code:
        print(
            f"screen: {summary.failure_rate:.1%} of the rows failed, more than the"
            f" {config.max_failure_rate:.1%} of --max-failure-rate: see the reasons above",
            file=sys.stderr,
        )
    return summary.exit_code


def _write_report(config: Config, run_id: str) -> list[str]:
    """Write the report of a run; return lines for the terminal."""
    from fundus.report import night, run  # slow to import: the first rows need not wait for it

    place, uri_map = open_place(config.screening.results), config.screening.uri_map
    about = run.Config(run_id, site=config.site)
    return night.lines(*night.show(place, about, config.bundle_uri, uri_map))


def _moment(text: str) -> datetime:
    """Parse an ISO 8601 day or time; UTC unless it has a zone."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


if __name__ == "__main__":
    sys.exit(main())
