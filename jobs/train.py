#!/usr/bin/env python
"""Train a bundle's detector or segmenter on a labelled source, or distil a student from it.

    python jobs/train.py segmenter --source "refuge:data/REFUGE?split=train" --bundle runs/mine
    python jobs/train.py detector --source "refuge:data/REFUGE?split=train" --bundle runs/mine
    ray job submit --working-dir . -- jobs/train.py segmenter --recipe paper --workers 4 --gpu ...
    python jobs/train.py student --source "refuge:data/REFUGE?split=train" --bundle runs/mine

A student is one network that learns the answers of the bundle's whole segmenter. `jobs/screen.py
--profile fast` uses it. It needs no labels: those of --source only place the disc, and --unlabelled
takes any disc crops.

With a site file (docs/site.toml), arguments that it holds may be left out.

To resume, run the same command again. The last line names the summary, a file with the figures of
the last epoch and the bundle's digest.

Exit codes: 0 trained; 2 bad configuration.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from fundus import site
from fundus.errors import ConfigurationError, full_disk_explained
from fundus.models.bundle import DETECTOR, SOURCE_ONLY, STUDENT
from fundus.runtime import workers
from fundus.runtime.resources import reachable
from fundus.runtime.session import ray_session
from fundus.training.recipes import BOOKS, book_named, changed
from fundus.training.runs import TrainConfig, save_summary, train
from fundus.training.student import StudentConfig, distil

ROLES = {"detector": DETECTOR, "segmenter": SOURCE_ONLY, "student": STUDENT}


def parse(arguments: Sequence[str] | None = None) -> TrainConfig | StudentConfig:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        epilog=(__doc__ or "").split("\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("network", choices=ROLES)
    parser.add_argument("--source", action="append", help="layout:path?key=value")
    parser.add_argument(
        "--unlabelled", action="append", default=[], help="for a student: disc crops without labels"
    )
    parser.add_argument("--bundle", help="folder or s3:// URI of the bundle")
    parser.add_argument("--recipe", help=f"{', '.join(BOOKS)}; default: quick")
    parser.add_argument("--change", action="append", default=[], help="recipe field=value")
    parser.add_argument("--encoder", type=Path, help="ImageNet weights, safetensors, when offline")
    parser.add_argument("--from-scratch", action="store_true", help="without ImageNet weights")
    parser.add_argument("--start", help="bundle whose segmenter training starts from")
    workers.add_arguments(parser)
    args = site.parse(
        parser, arguments, needed=("source", "bundle"), storage="runs", recipe="quick"
    )
    role = ROLES[args.network]
    book = changed(book_named(args.recipe), role, args.change)
    if role == STUDENT:
        if args.encoder or args.from_scratch or args.start:
            raise ConfigurationError(
                "a student starts from the bundle's segmenter: leave out --encoder, --from-scratch"
                " and --start"
            )
        return StudentConfig(
            bundle=args.bundle,
            sources=tuple(args.source),
            unlabelled=tuple(args.unlabelled),
            recipe=book.segmenter,
            storage=args.storage,
            workers=workers.workers(args),
        )
    if args.unlabelled:
        raise ConfigurationError("--unlabelled is for a student: give labelled sets with --source")
    return TrainConfig(
        role=role,
        sources=tuple(args.source),
        bundle=args.bundle,
        book=book,
        encoder=args.encoder,
        from_scratch=args.from_scratch,
        start=args.start,
        storage=args.storage,
        workers=workers.workers(args),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, train, print the result; the exit code."""
    try:
        config = parse(arguments)
        with full_disk_explained(), ray_session(level=logging.INFO, dashboard=True):
            workers.check_room(config.workers, reachable())
            if isinstance(config, StudentConfig):
                name, bundle, history = distil(config)
            else:
                name, bundle, history = train(config)
    except ConfigurationError as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    scores = bundle.networks[config.role].scores
    summary = save_summary(
        config.storage,
        name,
        exit_code=0,
        scores=scores,
        epochs=len(history),
        bundle=bundle.digest,
    )
    figures = "  ".join(f"{k} {v}" for k, v in scores.items())
    print(f"{config.role} trained for {len(history)} epochs; the last: {figures}")
    print(f"bundle {bundle.digest[:12]} in {config.bundle}, curves beside it")
    print(f"summary: {summary}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
