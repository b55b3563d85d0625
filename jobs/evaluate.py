#!/usr/bin/env python
"""Print the paper's tables for a bundle, on labelled sets.

    python jobs/evaluate.py --bundle bundle --set 'manifest:data/manifest.csv?set=drishti_gs1_crop512' --precropped --out evaluation

    python jobs/evaluate.py --set 'manifest:data/manifest.csv?set=idrid20_disc' --detection --out detection

Prints one row per set and model (target-supervised, source-only, adapted, ensemble) and writes
table.txt, table.csv, evaluation.json (every eye) and overlay sheets of the ten worst eyes to --out.
With --detection only the detector is scored: how often the centre of its ROI is inside the experts'
disc, and how often it finds no disc. Then detection.txt and detection.json are written.

With a site file (docs/site.toml), --bundle and --precropped may be left out.
"""  # noqa: E501

import argparse
import json
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fundus import site
from fundus.datasets.public import open_set
from fundus.datasets.samples import LabelledSet
from fundus.errors import ConfigurationError, usable
from fundus.evaluation import detection, scoring, tables
from fundus.models import bundle
from fundus.models.predictor import Predictor


@dataclass(frozen=True)
class Config:
    """The checked command line."""

    bundle: Path | str
    """The bundle whose source-only and adapted networks are scored."""
    target_supervised: Path | str | None
    """A bundle whose `source_only` network was trained on the target's labels."""
    sets: tuple[str, ...]
    """Labelled sets, `layout:path?key=value`."""
    precropped: bool
    """The pictures are disc crops already; there is no detection."""
    detection: bool
    """Score only the detector, on full frames, with or without labels."""
    out: Path
    """The folder to write to."""
    limit: int | None
    """Score only the first pictures of each set; None for all."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigurationError(f"--limit {self.limit}: give 1 or more pictures")
        if self.detection and (self.precropped or self.target_supervised):
            raise ConfigurationError(
                "--detection scores only the detector: leave out --precropped and"
                " --target-supervised"
            )


def run(config: Config) -> list[Path]:
    """Evaluate every set and print the table.

    Returns:
        The files that were written.

    Raises:
        ConfigurationError: a bundle, a set or the folder cannot be used.
    """
    compared = bundle.load(config.bundle)
    reference = bundle.load(config.target_supervised) if config.target_supervised else None
    whole_sets = [open_set(spec) for spec in config.sets]
    with usable(f"--out {config.out}"):
        config.out.mkdir(parents=True, exist_ok=True)
    predictor = Predictor(compared)
    supervised = Predictor(reference) if reference else None
    labelled = [first(each, config.limit) for each in whole_sets]
    if config.detection:
        return detect(compared, predictor, labelled, config)
    evaluations = [
        scoring.evaluate(pictures, predictor, supervised, name=name, precropped=config.precropped)
        for pictures, name in zip(labelled, names_of(labelled), strict=True)
    ]
    print(tables.as_text([row for each in evaluations for row in each.rows]))
    digests = {each.name: each.digest() for each in whole_sets}
    notes = [note for each in (compared, reference) if each for note in familiar(each, digests)]
    print(*notes, sep="\n", end="\n" if notes else "")
    about = {
        "bundle": compared.digest,
        "target_supervised": reference.digest if reference else None,
        "sets": digests,
        "precropped": config.precropped,
        "limit": config.limit,
        "notes": notes,
    }
    return tables.write(evaluations, config.out, about)


def detect(
    compared: bundle.Bundle, predictor: Predictor, labelled: Sequence[LabelledSet], config: Config
) -> list[Path]:
    """Print and write the table of detection; return the files that were written."""
    looks = [detection.look(each, predictor) for each in labelled]
    rows = [detection.summarise(answers) for answers in looks]
    digests = {each.name: each.digest() for each in labelled}
    text = "\n".join([detection.as_text(rows), *familiar(compared, digests)])
    print(text)
    everything = {
        "bundle": compared.digest,
        "sets": digests,
        "rows": rows,
        "answers": [asdict(answer) for answers in looks for answer in answers],
    }
    table, answers = config.out / "detection.txt", config.out / "detection.json"
    table.write_text(text + "\n")
    answers.write_text(json.dumps(everything, indent=1, allow_nan=False) + "\n")
    return [table, answers]


def familiar(compared: bundle.Bundle, digests: Mapping[str, str]) -> list[str]:
    """A note per network that was trained on one of these sets, by the digests of the sets."""
    return [
        f"Note: {role} of {compared.digest[:12]} was trained on {name}, as {how}."
        for name, digest in digests.items()
        for role, how in compared.trained_on(digest).items()
    ]


def first(labelled: LabelledSet, limit: int | None) -> LabelledSet:
    """The set with its first `limit` samples; None for all."""
    return replace(labelled, samples=labelled.samples[:limit])


def names_of(labelled: Sequence[LabelledSet]) -> list[str]:
    """A unique short name per set, for tables and files, from the set names of its samples."""
    names: list[str] = []
    for each in labelled:
        name = re.sub(r"[^\w.+-]+", "_", "+".join(sorted({s.set for s in each.samples})))
        same = sum(known.partition("~")[0] == name for known in names)
        names.append(f"{name}~{same + 1}" if same else name)
    return names


def parse(argv: Sequence[str] | None) -> Config:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", metavar="URI", help="default: the package's")
    parser.add_argument("--target-supervised", metavar="BUNDLE")
    parser.add_argument("--set", action="append", required=True, dest="sets", metavar="SPEC")
    parser.add_argument(
        "--precropped",
        action=argparse.BooleanOptionalAction,
        help="the pictures are disc crops already",
    )
    parser.add_argument("--detection", action="store_true", help="score only the detector")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N pictures of each set")
    args = site.parse(parser, argv, bundle=bundle.default_folder(), precropped=False)
    return Config(
        bundle=args.bundle,
        target_supervised=args.target_supervised,
        sets=tuple(args.sets),
        precropped=args.precropped,
        detection=args.detection,
        out=args.out,
        limit=args.limit,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, evaluate, print the result; the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        config = parse(argv)
        written = run(config)
    except ConfigurationError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    print(f"\n{len(written)} files in {config.out}: {', '.join(file.name for file in written)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
