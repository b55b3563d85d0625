#!/usr/bin/env python
"""Screen an archive: one Parquet row for every object, or the reason why it has no measures.

    python jobs/screen.py --archive photographs --results results
    python jobs/screen.py --archive disc-crops --results results --roi --bundle runs/mine
    ray job submit --working-dir . -- jobs/screen.py --archive /data/archive --results /data/results

Rows lie under <results>/runs/<run>/rows. Exit codes: 0 every object has its row, failed pictures
included; 2 bad configuration.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fundus.models import bundle as bundles
from fundus.screening import pipeline, report, session


def parse(arguments: Sequence[str] | None = None) -> tuple[pipeline.Screening, bundles.Bundle]:
    """Command line to a checked configuration and the bundle that it fits."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        epilog=(__doc__ or "").split("\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--archive", required=True, metavar="URI", help="folder of photographs")
    parser.add_argument("--results", required=True, metavar="URI", help="folder for the rows")
    parser.add_argument("--bundle", metavar="URI", help="default: the one in the package")
    parser.add_argument("--roi", action="store_true", help="the pictures are disc crops already")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N objects")
    given = parser.parse_args(arguments)
    config = pipeline.Screening(
        archive=given.archive, results=given.results, crops=given.roi, limit=given.limit
    )
    bundle = bundles.load(Path(given.bundle) if given.bundle else bundles.default_folder())
    config.check(bundle)
    return config, bundle


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, screen, say what came out."""
    try:
        config, bundle = parse(arguments)
    except ValueError as error:
        print(f"screen: {error}", file=sys.stderr)
        return 2
    with session.ray_session():
        summary = pipeline.screen(config, bundle)
    print(report.readable(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
