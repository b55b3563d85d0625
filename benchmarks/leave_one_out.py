#!/usr/bin/env python
"""Train on three of four cameras and score the fourth, in turn, as for a new hospital.

    python benchmarks/leave_one_out.py --data DATA --encoder WEIGHTS --out loo

Every choice in the recipe is made by the mean over the four cameras (docs/experiments.md). The
cameras are REFUGE, Drishti-GS, ORIGA and the MESSIDOR-like set in the `manifest.csv` of DATA.
DRIONS, IDRiD and PALM, in which only the disc is outlined, are always used for training and never
scored. The ROI is centred on the disc that the detector of `--detector` finds in the frame; in
REFUGE's crops it is centred on the experts' disc. Decoded crops are cached in `--cache`. Bundles
and figures are stored in `--out`. The same command run again resumes from there and scores the
stored maps again.

    python benchmarks/leave_one_out.py --data DATA --out loo --adapt self-training

    python benchmarks/leave_one_out.py --data DATA --out loo --bundle fundus/bundles/default

With `--bundle` the four segmenters become the members of one ensemble, as nnU-Net ensembles the
folds of its cross-validation: three of the four were trained on each camera.

    python benchmarks/leave_one_out.py --data DATA --out loo --folds-of fundus/bundles/default

With `--folds-of` the segmenters are not trained: they are the members of such an ensemble.

    python benchmarks/leave_one_out.py --data DATA --out loo --student

With `--student` the segmenter of each bundle in `--out` is distilled into a student, on the
pictures that it learned from and the 1,000 unlabelled disc crops. The student screens with the
profile `fast`; its figures stand beside those of the segmenter.

With `--adapt` the pictures of the camera left out are the target: each bundle in `--out` is adapted
to them without labels, judged by the gate, and scored beside the source-only bundle.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from left_out import CAMERAS, Data, figures, predictions, score, stored_predictions, table

from fundus.datasets import batches
from fundus.datasets.batches import Crops
from fundus.models import architectures, networks
from fundus.models import bundle as bundles
from fundus.models.bundle import ADAPTED, SOURCE_ONLY, STUDENT, Bundle, Network
from fundus.training import gate, loop, student
from fundus.training.adaptation import AdaptationLearner
from fundus.training.recipes import BOOKS, METHODS, Recipe, RecipeBook, changed
from fundus.training.source import SourceLearner
from fundus.training.targets import read_target

DISC_ONLY = ("drions_disc", "idrid20_disc", "palm_disc")
UNLABELLED = "onh_unlabelled_crop"


def shown(recipe: Recipe) -> Callable[[dict], None]:
    """Return what prints the progress of a training after each epoch."""

    def show(state: dict) -> None:
        print("   ", loop.progress(state["history"], recipe.epochs), flush=True)

    return show


def without_cups(crops: Crops) -> Crops:
    """Return the crops as those of a set in which only the disc is outlined."""
    discs = torch.where(crops.masks > 0, batches.CUP_UNKNOWN, crops.masks)
    return replace(crops, masks=discs, vcdr=np.full(len(crops), np.nan))


def train(
    data: Data,
    book: RecipeBook,
    sets: Sequence[str],
    encoder: Path | None,
    discs_of: Sequence[str] = (),
) -> Network:
    """Train the recipe's segmenter with one seed, in this process.

    Of the sets in `discs_of` only the discs are learned.
    """
    recipe = book.segmenter
    parts = [data.learned(name, book) for name in sets]
    crops = batches.join(
        [without_cups(p) if name in discs_of else p for name, p in zip(sets, parts, strict=True)]
    )
    learn, validate = batches.split(crops.persons)
    loop.seed_generators(recipe.seed)
    network = networks.build(recipe.network)
    networks.start_from_imagenet(network, encoder)
    network = network.to(memory_format=torch.channels_last)
    learner = SourceLearner(network, recipe, crops.take(learn), crops.take(validate))

    history = loop.run_epochs(learner, recipe.epochs, after_epoch=shown(recipe))
    if learner.conventions:
        offsets = learner.conventions.centred().detach()
        print("    offsets", {n: offsets[i].tolist() for n, i in learner.conventions.index.items()})
    weights = {k: v.contiguous() for k, v in learner.average.module.state_dict().items()}
    figures = {k: round(v, 4) for k, v in history[-1].items() if k != "seconds"}
    return Network(recipe.network, weights, recipe.described(), (), figures)


def adapt(
    data: Data, bundle: Bundle, book: RecipeBook, camera: str, seen: Crops
) -> tuple[Bundle, tuple[gate.Check, ...]]:
    """Adapt the segmenter to pictures of the camera; return the bundle and the gate's checks."""
    recipe = book.adaptation
    sets = [name for other in CAMERAS if other != camera for name in CAMERAS[other]]
    source = batches.join([data.learned(name, book) for name in sets])
    learn, validate = batches.split(source.persons)
    target = replace(seen, masks=torch.zeros_like(seen.masks), vcdr=np.full(len(seen), np.nan))
    loop.seed_generators(recipe.seed)
    discriminator = networks.Discriminator(patch=recipe.discriminator == "patch")
    source_only = bundle.networks[SOURCE_ONLY]
    learner = AdaptationLearner(
        source_only.build().to(memory_format=torch.channels_last),
        discriminator,
        recipe,
        source.take(learn),
        source.take(validate),
        target,
        thresholds=bundle.thresholds,
    )
    loop.run_epochs(learner, recipe.epochs, after_epoch=shown(recipe))
    weights = {k: v.contiguous() for k, v in learner.average.module.state_dict().items()}
    adapted = replace(source_only, weights=weights, recipe=recipe.described())
    judgement = gate.judge(
        source_only.build(), adapted.build(), source.take(validate), target, bundle.thresholds
    )
    return bundle.with_network(SOURCE_ONLY, adapted), judgement.checks


def distilled(data: Data, bundle: Bundle, book: RecipeBook, camera: str) -> Bundle:
    """Distil the segmenter into a student, without pictures of the camera; return the bundle."""
    sets = [name for other in CAMERAS if other != camera for name in CAMERAS[other]]
    parts = [data.learned(name, book) for name in [*sets, *DISC_ONLY]]
    unlabelled = f"manifest:{data.folder}/manifest.csv?set={UNLABELLED}"
    seen = read_target([unlabelled], bundle, precropped=True).crops
    parts.append(replace(seen, sets=(UNLABELLED,) * len(seen), persons=()))
    teacher = student.teacher_of(bundle)
    crops = student.taught(batches.join(parts), teacher)
    learn, validate = batches.split(crops.persons)
    recipe, first = student.first_of(bundle, book.segmenter)
    loop.seed_generators(recipe.seed)
    network = networks.build(recipe.network).to(memory_format=torch.channels_last)
    network.load_state_dict(first)
    learner = student.StudentLearner(
        network, recipe, crops.take(learn), crops.take(validate), teacher
    )
    loop.run_epochs(learner, recipe.epochs, after_epoch=shown(recipe))
    weights = {k: v.contiguous() for k, v in learner.average.module.state_dict().items()}
    return bundle.with_network(STUDENT, Network(recipe.network, weights, recipe.described()))


def distil_all(data: Data, book: RecipeBook, out: Path, cameras: Iterable[str]) -> int:
    """Distil the bundle of each left-out camera; print the figures of segmenter and student."""
    whole, fast = {}, {}
    for camera in cameras:
        bundle = with_levels(bundles.load(out / camera), book)
        crops = data.scored(CAMERAS[camera][0], book)
        if STUDENT not in bundle.networks:
            print(f"student without {camera}", flush=True)
            bundle = distilled(data, bundle, book, camera)
            bundles.save(bundle, out / camera)
        maps = stored_predictions(bundle, crops, out / f"{camera}.npz")
        whole[camera] = figures(score(maps, crops, bundle.thresholds))
        fast[camera] = figures(score(predictions(bundle, crops, "fast"), crops, bundle.thresholds))
        print("segmenter", table(whole), "student", table(fast), sep="\n", flush=True)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the segmenters, score them and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="FOLDER", help="folder with manifest.csv")
    add("--encoder", type=Path, metavar="FILE", help="ImageNet weights, safetensors")
    add("--recipe", choices=BOOKS, default="laptop")
    add("--change", action="append", default=[], metavar="FIELD=VALUE")
    add("--members", type=int, default=1, help="seeds per ensemble")
    add(
        "--thresholds", type=float, nargs=2, metavar=("DISC", "CUP"), help="instead of the recipe's"
    )
    add("--only", action="append", choices=CAMERAS, help="leave out only these")
    add("--learn", action="append", choices=CAMERAS, help="train only on these, score all others")
    add("--discs-of", action="append", choices=CAMERAS, help="learn only the discs of these")
    add("--cup-sets-alone", action="store_true", help="train without DRIONS, IDRiD and PALM")
    add("--student", action="store_true", help="distil the bundles in --out")
    add("--adapt", choices=METHODS, help="adapt the bundles in --out to the camera left out")
    add("--change-adaptation", action="append", default=[], metavar="FIELD=VALUE")
    add("--targets", type=int, help="most eyes per camera to adapt to and to score")
    add("--detector", default=bundles.default_folder(), metavar="BUNDLE")
    add("--bundle", type=Path, metavar="FOLDER", help="write the ensemble of all folds here")
    add("--folds-of", type=Path, metavar="BUNDLE", help="take an ensemble's members, train nothing")
    add("--cache", type=Path, default=Path("runs/crops"), metavar="FOLDER")
    add("--out", type=Path, required=True, metavar="FOLDER")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    data = Data(args.data, args.cache, bundles.load(args.detector))
    book = changed(BOOKS[args.recipe](), SOURCE_ONLY, args.change)
    if args.thresholds:
        disc, cup = args.thresholds
        book = replace(book, thresholds=replace(book.thresholds, disc=disc, cup=cup))
    args.out.mkdir(parents=True, exist_ok=True)
    if args.folds_of:
        for camera, fold in folds_of(bundles.load(args.folds_of)).items():
            if not bundles.exists(args.out / camera):
                bundles.save(assembled(data.detector, book, [fold]), args.out / camera)
    if args.adapt:
        changes = [f"method={args.adapt}", *args.change_adaptation]
        book = changed(book, ADAPTED, changes)
        return adapt_all(data, book, args.out, args.only or CAMERAS, args.targets)
    if args.student:
        return distil_all(data, book, args.out, args.only or CAMERAS)
    rows = {}
    trained: Bundle | None = None
    for camera in args.only or CAMERAS:
        if args.learn and camera in args.learn:
            continue
        folder = args.out / camera
        if bundles.exists(folder):
            bundle = with_levels(bundles.load(folder), book)
        elif args.learn and trained:
            bundle = trained
        else:
            learned = args.learn or [name for name in CAMERAS if name != camera]
            sets = [name for one in learned for name in CAMERAS[one]]
            sets += [] if args.cup_sets_alone else DISC_ONLY
            start, parts = time.monotonic(), []
            for seed in range(book.segmenter.seed, book.segmenter.seed + args.members):
                print(f"without {camera}, seed {seed}: {', '.join(sets)}", flush=True)
                recipe = replace(book.segmenter, seed=seed, members=1)
                discs_of = [name for one in args.discs_of or () for name in CAMERAS[one]]
                seeded = replace(book, segmenter=recipe)
                parts.append(train(data, seeded, sets, args.encoder, discs_of))
            bundle = assembled(data.detector, book, parts)
            print(f"    {time.monotonic() - start:.0f} s", flush=True)
            bundles.save(bundle, folder)
            trained = bundle
        crops = data.scored(CAMERAS[camera][0], book)
        maps = stored_predictions(bundle, crops, args.out / f"{camera}.npz")
        rows[camera] = figures(score(maps, crops, bundle.thresholds))
        print(table(rows), flush=True)
        (args.out / "figures.json").write_text(json.dumps(rows, indent=2) + "\n")
    if args.bundle:
        folds = [bundles.load(args.out / camera).networks[SOURCE_ONLY] for camera in CAMERAS]
        bundles.save(ensemble(data, book, folds, rows), args.bundle)
    return 0


def ensemble(
    data: Data, book: RecipeBook, folds: Sequence[Network], rows: dict[str, dict[str, float]]
) -> Bundle:
    """Join the folds into one segmenter, and record their training sets and scores."""
    bundle = assembled(data.detector, book, folds)
    names = [name for sets in CAMERAS.values() for name in sets] + list(DISC_ONLY)
    sets = [data.opened(name) for name in names]
    learned = tuple(
        {
            "name": each.name,
            "role": "labelled source",
            "count": len(each.samples),
            "digest": each.digest(),
        }
        for each in sets
    )
    recipe = book.segmenter.described() | {
        "roi_scale": book.preprocessing.roi_scale,
        "members": f"one for each camera left out: {', '.join(CAMERAS)}",
    }
    rounded = {f"without {c}": {k: round(v, 4) for k, v in row.items()} for c, row in rows.items()}
    network = replace(
        bundle.networks[SOURCE_ONLY], recipe=recipe, data=learned, scores={"left out": rounded}
    )
    return bundle.with_network(SOURCE_ONLY, network)


def folds_of(bundle: Bundle) -> dict[str, Network]:
    """Return each member of an `ensemble` by the camera that it has not learned from."""
    whole = bundle.networks[SOURCE_ONLY]
    config = whole.config
    if not isinstance(config, architectures.EnsembleConfig) or config.count != len(CAMERAS):
        sys.exit("--folds-of: the bundle's segmenter has no member for each camera left out")
    return {
        camera: Network(
            config.member,
            {
                name.removeprefix(f"members.{i}."): weights
                for name, weights in whole.weights.items()
                if name.startswith(f"members.{i}.")
            },
            whole.recipe,
        )
        for i, camera in enumerate(CAMERAS)
    }


def adapt_all(
    data: Data, book: RecipeBook, out: Path, cameras: Iterable[str], most: int | None
) -> int:
    """Adapt the bundle of each left-out camera to it; print both bundles' figures and the gate."""
    before, after, passed = {}, {}, {}
    for camera in cameras:
        bundle = with_levels(bundles.load(out / camera), book)
        every = data.scored(CAMERAS[camera][0], book)
        chosen = np.unique(np.linspace(0, len(every) - 1, most or len(every)).astype(int))
        crops = every.take(chosen)
        adapted, checks = adapt(data, bundle, book, camera, crops)
        found = {
            "before": stored_predictions(bundle, every, out / f"{camera}.npz")[chosen],
            "after": predictions(adapted, crops),
        }
        before[camera], after[camera] = (
            figures(score(maps, crops, bundle.thresholds)) for maps in found.values()
        )
        passed[camera] = all(check.passed for check in checks)
        print(camera, *checks, sep="\n    ", flush=True)
        print("    source-only", before[camera], "\n    adapted", after[camera], flush=True)
    print("source-only", table(before), "adapted", table(after), sep="\n")
    published = {name: (after if passed[name] else before)[name] for name in passed}
    print("what the gate publishes", table(published), sep="\n")
    print("passed the gate:", ", ".join(name for name in passed if passed[name]) or "none")
    return 0


def with_levels(bundle: Bundle, book: RecipeBook) -> Bundle:
    """Return the bundle with the recipe's thresholds for disc and cup."""
    found = bundle.thresholds
    levels = replace(book.thresholds, disc_found=found.disc_found, confidence=found.confidence)
    return replace(bundle, thresholds=levels)


def assembled(detector: Bundle, book: RecipeBook, parts: Sequence[Network]) -> Bundle:
    """Join the trained members and the detector into one bundle."""
    network = parts[0]
    if len(parts) > 1:
        config = architectures.EnsembleConfig(network.config, len(parts))
        weights = {
            f"members.{i}.{k}": v for i, part in enumerate(parts) for k, v in part.weights.items()
        }
        network = replace(network, config=config, weights=weights)
    side = detector.preprocessing.detector_side
    known = replace(detector, preprocessing=replace(book.preprocessing, detector_side=side))
    return with_levels(known, book).with_network(SOURCE_ONLY, network)


if __name__ == "__main__":
    sys.exit(main())
