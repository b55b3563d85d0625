#!/usr/bin/env python
"""The paper's tables for a bundle, on labelled sets.

    python jobs/evaluate.py --bundle bundle --set 'manifest:data/manifest.csv?set=drishti_gs1_crop512' --precropped --out evaluation

    python jobs/evaluate.py --set 'manifest:data/manifest.csv?set=idrid20_disc' --detection --out detection

Prints one row for each set and model (target-supervised, source-only, adapted, ensemble) and writes
table.txt, table.csv, evaluation.json (every eye) and overlay sheets of the ten worst eyes to --out.
With --detection only the detector is asked: how often the centre of its ROI lies inside the experts'
disc, how often it says that there is none; detection.txt and detection.json.

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
    bundle: Path | str
    """The bundle whose source-only and adapted networks are scored."""
    target_supervised: Path | str | None
    """A bundle whose `source_only` network was trained on the target's labels."""
    sets: tuple[str, ...]
    """Labelled sets, `layout:path?key=value`."""
    precropped: bool
    """The pictures are disc crops already; detection is left out."""
    detection: bool
    """Only the detector is scored, on full frames, with labels or without."""
    out: Path
    """The folder to write to."""
    limit: int | None
    """At most so many pictures of each set, its first ones."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigurationError(f"--limit {self.limit}: at least one picture is needed")
        if self.detection and (self.precropped or self.target_supervised):
            raise ConfigurationError(
                "--detection asks the detector alone: no --precropped, no --target-supervised"
            )


def run(config: Config) -> list[Path]:
    """Evaluate every set, print the table, and return the files that were written.

    ConfigurationError, in one sentence, when something given cannot be used.
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
    """Print and write the detection table; what was written."""
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
    """A sentence for each network that met one of these very sets (by digest) in its training."""
    return [
        f"Note: {role} of {compared.digest[:12]} met {name} in training, as {how}."
        for name, digest in digests.items()
        for role, how in compared.met(digest).items()
    ]


def first(labelled: LabelledSet, limit: int | None) -> LabelledSet:
    """The set's first `limit` samples; all without a limit."""
    return replace(labelled, samples=labelled.samples[:limit])


def names_of(labelled: Sequence[LabelledSet]) -> list[str]:
    """A short name for each, fit for a table and a file: its samples' set names, made unique."""
    names: list[str] = []
    for each in labelled:
        name = re.sub(r"[^\w.+-]+", "_", "+".join(sorted({s.set for s in each.samples})))
        same = sum(known.partition("~")[0] == name for known in names)
        names.append(f"{name}~{same + 1}" if same else name)
    return names


def parse(argv: Sequence[str] | None) -> Config:
    """The command line as a config; argparse's exit code 2 when it is wrong."""
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
    parser.add_argument("--detection", action="store_true", help="score the detector alone")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N pictures of each set")
    given = site.parse(parser, argv, bundle=bundle.default_folder(), precropped=False)
    return Config(
        bundle=given.bundle,
        target_supervised=given.target_supervised,
        sets=tuple(given.sets),
        precropped=given.precropped,
        detection=given.detection,
        out=given.out,
        limit=given.limit,
    )


def main(argv: Sequence[str] | None = None) -> int:
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
