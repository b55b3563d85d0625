#!/usr/bin/env python
"""Draw an archive of synthetic frames from two different cameras, screen it and write the report.

    python jobs/demo.py --to demo
    python jobs/demo.py --to demo --count 50

The frames are drawings: the demo shows that the pipeline works, not how well it measures eyes.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fundus.datasets import synthetic
from fundus.errors import ConfigurationError
from fundus.ledger import table
from fundus.models import bundle as bundles
from fundus.report import night, run
from fundus.runtime.session import ray_session
from fundus.screening import pipeline, report
from fundus.screening.settings import Screening
from fundus.storage.places import open_place


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw and screen; print the summary, the error against the truth and the report's path."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        epilog=(__doc__ or "").split("\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--to", type=Path, default=Path("demo"), help="folder for the archive and the results"
    )
    parser.add_argument("--count", type=int, default=12, help="frames per camera")
    parser.add_argument("--bundle", type=Path, help="default: the one in the package")
    args = parser.parse_args(arguments)
    archive = args.to / "archive"
    try:
        bundle = bundles.load(args.bundle or bundles.default_folder())
        cameras = (synthetic.clinic(), synthetic.hospital())
        drawn = synthetic.write_archive(archive, cameras, args.count, seed=1)
        config = Screening(archive=str(archive), results=str(args.to / "results"))
        config.check(bundle)
        print(f"{len(drawn)} frames drawn in {archive}; screening starts")
        with ray_session():
            summary = pipeline.screen(config, bundle, show=print)
    except ConfigurationError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    print(report.readable(summary))
    rows = table.read(config.results, ["uri", "vcdr"]).to_pylist()
    found = {row["uri"]: row["vcdr"] for row in rows}
    pairs = [(found.get(one.path.resolve().as_uri()), one.vcdr) for one in drawn]
    errors = [abs(measured - true) for measured, true in pairs if measured is not None]
    if errors:
        print(f"mean error of vCDR against the {len(errors)} drawn eyes: {np.mean(errors):.3f}")
    place, about = open_place(config.results), run.Config(summary.run_id, site="Drawn eyes")
    bundle_place = str(args.bundle or bundles.default_folder())
    print(*night.lines(*night.show(place, about, bundle_place)), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
