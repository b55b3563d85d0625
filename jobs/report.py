#!/usr/bin/env python
"""Write the report of a screening run beside its results, and read a grader's verdicts back.

    python jobs/report.py --results results
    python jobs/report.py --results s3://screening/results --pictures 100
    python jobs/report.py --results results --verdicts verdicts.csv --to labelled
    python jobs/report.py --results source-results --as-reference --bundle runs/mine
    python jobs/report.py --results results --against old-results

With a site file (docs/site.toml), --results and --bundle may be left out.

The report is a page that needs no server: <results>/reports/<run>/index.html. The pictures of the
suspects are read again from the archive. If the archive cannot be reached, the report shows only
the outlines.

--verdicts makes a manifest with pictures, masks and labels from an exported file of verdicts;
jobs/calibrate.py and jobs/train.py read it as `manifest:labelled/manifest.csv`. --as-reference
copies the rows beside the bundle, and later nights are compared with them: screen the pictures that
the bundle learned from to get such rows. --against writes a page that compares the current rows
with those of another bundle on the same archive or, with --version, with an earlier version.

Exit codes: 0 done; 2 bad configuration.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fundus import site
from fundus.drift import reference
from fundus.errors import ConfigurationError
from fundus.models import bundle as bundles
from fundus.report import comparison, labels, night, run
from fundus.storage.places import open_place


@dataclass(frozen=True)
class Config:
    """The checked command line."""

    results: str
    """Folder or s3:// URI of the results."""
    report: run.Config
    uri_map: Path | None
    """Parquet file with the URI of each pseudonym, as screening wrote it."""
    verdicts: Path | None
    """A file that the report exported; None to write the report."""
    to: Path | None
    """Folder for the manifest of the verdicts."""

    bundle: str
    """The bundle with whose reference the run is compared."""
    as_reference: bool
    """Make the rows the reference of the bundle."""

    against: str
    """Results of another bundle on the same archive; "" for no comparison."""
    version: int | None
    """The version of those results; None for the newest."""

    def __post_init__(self) -> None:
        if (self.verdicts is None) != (self.to is None):
            raise ConfigurationError("--verdicts and --to go together: give both or neither")
        if self.version is not None and not self.against:
            raise ConfigurationError("--version is the version of --against: give both")
        if self.report.most_pictures < 0:
            raise ConfigurationError(f"--pictures {self.report.most_pictures}: give 0 or more")


def parse(arguments: Sequence[str] | None = None) -> Config:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        epilog=(__doc__ or "").split("\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--results", metavar="URI", help="folder or s3:// URI of the results")
    add("--run", metavar="ID", help="default: the newest run that has rows")
    add("--pictures", type=int, default=40, metavar="N", help="suspects to show with a picture")
    add("--name", help="the site's name for the title; default: that of the site file")
    add("--uri-map", type=Path, metavar="FILE", help="the URI of each pseudonym")
    add("--verdicts", type=Path, metavar="CSV", help="read a grader's exported verdicts")
    add("--to", type=Path, metavar="DIR", help="folder for the manifest of the verdicts")
    add("--bundle", metavar="URI", help="the bundle that screened; default: the package's")
    add("--as-reference", action="store_true", help="compare later nights with these rows")
    add("--against", metavar="URI", default="", help="compare with the results of another bundle")
    add("--version", type=int, metavar="N", help="of --against; default: the newest")
    args = site.parse(parser, arguments, needed=("results",), bundle=str(bundles.default_folder()))
    report = run.Config(args.run, args.pictures, args.name)
    return Config(
        args.results,
        report,
        args.uri_map,
        args.verdicts,
        args.to,
        args.bundle,
        args.as_reference,
        args.against,
        args.version,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, write, print the location; the exit code."""
    try:
        config = parse(arguments)
        for file in (config.uri_map, config.verdicts):
            if file and not file.is_file():
                raise ConfigurationError(f"{file}: no such file; check the path")
        place = open_place(config.results)
        sources = run.sources(config.uri_map) if config.uri_map else None
        if config.against:
            other = open_place(config.against)
            compared = comparison.write(
                place, other, config.version, site=config.report.site, sources=sources
            )
            print(f"{compared.both} pictures compared: {compared.uri}")
            return 0
        if config.verdicts and config.to:
            print(labels.write(place, config.verdicts, config.to, sources).sentence)
            return 0
        if config.as_reference:
            measuring = bundles.load(config.bundle).measuring
            count = reference.save(config.results, config.bundle, measuring)
            print(f"{count} rows are the reference of {config.bundle}")
            return 0
        written, drift = night.show(place, config.report, config.bundle, config.uri_map)
    except ConfigurationError as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    print(*night.lines(written, drift), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
