#!/usr/bin/env python
"""Adapt a bundle's segmenter to a new camera, without labels.

    python jobs/adapt.py --bundle runs/mine --source "refuge:data/REFUGE?split=train" \\
        --target folder:data/new-hospital --to runs/adapted
    ray job submit --working-dir . -- jobs/adapt.py --workers 4 --gpu ...

With a site file (docs/site.toml), arguments that it holds may be left out.

To resume, run the same command again. The report, <storage>/<run>/report.html, shows the gate's
checks, the loss curves and the eyes whose outlines changed most. A copy without pictures is written
beside a published bundle. The last line names the summary, a file with the exit code, the gate's
figures and the digest of the bundle to screen with.

Exit codes: 0 published; 2 bad configuration; 4 refused by the gate, and --to is left as it was.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

from fundus import site
from fundus.errors import ConfigurationError, full_disk_explained
from fundus.models.bundle import ADAPTED
from fundus.report import adaptation
from fundus.runtime import metrics, workers
from fundus.runtime.resources import reachable
from fundus.runtime.session import ray_session
from fundus.storage.places import open_place
from fundus.training import gate
from fundus.training.recipes import BOOKS, METHODS, book_named, changed
from fundus.training.runs import Adaptation, AdaptConfig, adapt, save_summary

REFUSED = 4


def parse(arguments: Sequence[str] | None = None) -> tuple[AdaptConfig, str]:
    """Parse the command line; return the checked configuration and the site's name."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        epilog=(__doc__ or "").split("\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bundle", help="with a source-only segmenter")
    parser.add_argument("--source", action="append", help="layout:path?key=value")
    parser.add_argument("--target", action="append", help="layout:path?key=value")
    parser.add_argument("--to", help="folder or s3:// URI of the adapted bundle; default: --bundle")
    parser.add_argument(
        "--precropped",
        action=argparse.BooleanOptionalAction,
        help="the target's pictures are disc crops already",
    )
    parser.add_argument("--recipe", help=f"{', '.join(BOOKS)}; default: quick")
    parser.add_argument("--method", choices=METHODS, help="instead of the recipe's")
    parser.add_argument("--change", action="append", help="recipe field=value")
    workers.add_arguments(parser)
    args = site.parse(
        parser,
        arguments,
        needed=("bundle", "source", "target"),
        storage="runs",
        recipe="quick",
        change=[],
        precropped=False,
    )
    method = [f"method={args.method}"] if args.method else []
    book = changed(book_named(args.recipe), ADAPTED, method + args.change)
    config = AdaptConfig(
        bundle=args.bundle,
        sources=tuple(args.source),
        targets=tuple(args.target),
        to=args.to or args.bundle,
        recipe=book.adaptation,
        precropped=args.precropped,
        storage=args.storage,
        workers=workers.workers(args),
    )
    return config, args.name


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, adapt, print the result; the exit code."""
    try:
        config, name = parse(arguments)
        with full_disk_explained(), ray_session(level=logging.INFO, dashboard=True):
            workers.check_room(config.workers, reachable())
            result = adapt(config)
            metrics.count_gate(published=result.published)
    except ConfigurationError as error:
        print(f"adapt: {error}", file=sys.stderr)
        return 2
    code = 0 if result.published else REFUSED
    reports = write_reports(config, result, name)
    summary = save_summary(
        config.storage,
        result.run,
        exit_code=code,
        published=result.published,
        target={"used": len(result.target.crops), "left_out": result.target.left_out},
        checks=gate.report(result.checks),
        epochs=len(result.history),
        bundle=result.bundle.digest,
    )
    print(result.target)
    print(f"the gate, after {len(result.history)} epochs:")
    for check in result.checks:
        print(f"  {check}")
    if not result.published:
        print(f"not published: {config.to} is unchanged; screen with --bundle {config.bundle}, or")
        print("adapt again with more pictures of the target, or with another --change")
    else:
        print(f"published: bundle {result.bundle.digest[:12]} in {config.to}, curves beside it")
        print("calibrate its risk again: jobs/calibrate.py")
    print(*(f"report: {one}" for one in reports), sep="\n")
    print(f"summary: {summary}")
    return code


def write_reports(config: AdaptConfig, result: Adaptation, name: str) -> list[str]:
    """Write the report beside the checkpoints and, if the bundle was published, beside the bundle.

    The copy beside the bundle has no pictures and no file names, because bundles are shared.

    Returns:
        The paths or URIs of the reports.
    """
    about = adaptation.Adaptation(
        run=result.run,
        published=result.published,
        bundle=result.bundle.digest,
        target=str(result.target),
        checks=gate.report(result.checks),
        history=result.history,
        vcdr=result.changes.vcdr,
        pairs=result.changes.pairs,
    )
    run = open_place(str(config.storage)).join(result.run)
    run.put("report.html", adaptation.page(about, site=name))
    written = [f"{run.uri}/report.html"]
    if result.published:
        to = open_place(str(config.to))
        to.put(f"{ADAPTED}.report.html", adaptation.page(about, identified=False))
        written.append(f"{to.uri}/{ADAPTED}.report.html")
    return written


if __name__ == "__main__":
    sys.exit(main())
