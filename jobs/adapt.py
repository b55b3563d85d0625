#!/usr/bin/env python
"""Adapt a bundle's segmenter to a new camera, without labels.

    python jobs/adapt.py --bundle runs/mine --source "refuge:data/REFUGE?split=train" \\
        --target folder:data/new-hospital --to runs/adapted
    ray job submit --working-dir . -- jobs/adapt.py --workers 4 --gpu ...

With a site file (docs/site.toml), arguments that it holds may be left out.

The same command again goes on where the last one ended. Exit codes: 0 published, 2 bad
configuration, 4 refused by the gate: the bundle in force stays as it is. The summary, which the
last line names, holds the code, the gate's figures and the digest of the bundle in force.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

from fundus import site
from fundus.errors import ConfigurationError, full_disk_explained
from fundus.models.bundle import ADAPTED
from fundus.runtime import metrics, workers
from fundus.runtime.resources import reachable
from fundus.runtime.session import ray_session
from fundus.training import gate
from fundus.training.recipes import BOOKS, METHODS, book_named, changed
from fundus.training.runs import AdaptConfig, adapt, save_summary

REFUSED = 4


def parse(arguments: Sequence[str] | None = None) -> AdaptConfig:
    """Command line to a checked configuration."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        epilog=(__doc__ or "").split("\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bundle", help="with a source-only segmenter")
    parser.add_argument("--source", action="append", help="layout:path?key=value")
    parser.add_argument("--target", action="append", help="layout:path?key=value")
    parser.add_argument("--to", help="place of the adapted bundle; default: --bundle")
    parser.add_argument(
        "--precropped",
        action=argparse.BooleanOptionalAction,
        help="target pictures are disc crops",
    )
    parser.add_argument("--recipe", help=f"default: quick; of {', '.join(BOOKS)}")
    parser.add_argument("--method", choices=METHODS, help="instead of the recipe's")
    parser.add_argument("--change", action="append", help="recipe field=value")
    workers.add_arguments(parser)
    given = site.parse(
        parser,
        arguments,
        needed=("bundle", "source", "target"),
        storage="runs",
        recipe="quick",
        change=[],
        precropped=False,
    )
    method = [f"method={given.method}"] if given.method else []
    book = changed(book_named(given.recipe), ADAPTED, method + given.change)
    return AdaptConfig(
        bundle=given.bundle,
        sources=tuple(given.source),
        targets=tuple(given.target),
        to=given.to or given.bundle,
        recipe=book.adaptation,
        precropped=given.precropped,
        storage=given.storage,
        workers=workers.workers(given),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, adapt, say what came out."""
    try:
        config = parse(arguments)
        with full_disk_explained(), ray_session(level=logging.INFO):
            workers.check_room(config.workers, reachable())
            result = adapt(config)
            metrics.count_gate(published=result.published)
    except ConfigurationError as error:
        print(f"adapt: {error}", file=sys.stderr)
        return 2
    code = 0 if result.published else REFUSED
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
        print(f"not published: {config.to} is not touched; screen with --bundle {config.bundle},")
        print("or adapt anew with more pictures of the target, or another --change")
    else:
        print(f"published: bundle {result.bundle.digest[:12]} in {config.to}, curves beside it")
        print("its risk is to be set anew: jobs/calibrate.py")
    print(f"summary: {summary}")
    return code


if __name__ == "__main__":
    sys.exit(main())
