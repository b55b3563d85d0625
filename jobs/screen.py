#!/usr/bin/env python
"""jobs/screen.py --archive photographs --results results

Screens every object of an archive: one Parquet row each, under <results>/runs/<run_id>/rows, with
the cup-to-disc ratio and the rim, or the reason why there is none. On a cluster:

    ray job submit --working-dir . -- jobs/screen.py --archive /data/archive --results /data/results

Exit code 0 when every object has its row, failed pictures included; 2 for a bad configuration.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import ray

from fundus.models import bundle as bundles
from fundus.screening import report
from fundus.screening.pipeline import Screening, screen


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, screen, say what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--archive", required=True, metavar="URI", help="folder of photographs")
    parser.add_argument("--results", required=True, metavar="URI", help="folder for the rows")
    parser.add_argument("--bundle", metavar="URI", help="default: the one in the package")
    parser.add_argument("--roi", action="store_true", help="pictures are disc crops already")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N objects")
    options = parser.parse_args(arguments)
    try:
        config = Screening(options.archive, options.results, options.roi, options.limit)
        folder = Path(options.bundle) if options.bundle else bundles.default_folder()
        bundle = bundles.load(folder)
        config.check(bundle)
    except ValueError as error:
        parser.exit(2, f"screen: {error}\n")
    if not ray.is_initialized():
        ray.init(logging_level=logging.ERROR)
    print(report.readable(screen(config, bundle)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
