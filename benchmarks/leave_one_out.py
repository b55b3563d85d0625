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
folds of its cross-validation: each camera is known to three of them.

With `--adapt` the pictures of the camera left out are the target: each bundle in `--out` is adapted
to them without a label, judged by the gate, and scored beside the bundle that was not adapted.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fundus.anatomy import biomarkers, scores
from fundus.anatomy.labels import cup_of, disc_of
from fundus.datasets import batches
from fundus.datasets.batches import Crops
from fundus.datasets.public import open_set
from fundus.datasets.samples import LabelledSet
from fundus.field import roi
from fundus.models import architectures, networks
from fundus.models import bundle as bundles
from fundus.models.bundle import ADAPTED, SOURCE_ONLY, Bundle, Network
from fundus.models.predictor import Predictor
from fundus.models.thresholds import Thresholds
from fundus.training import gate, loop
from fundus.training.adaptation import AdaptationLearner
from fundus.training.recipes import BOOKS, METHODS, RecipeBook, changed
from fundus.training.source import SourceLearner

CAMERAS = {
    "REFUGE": ("refuge_train_crop512",),
    "Drishti-GS": ("drishti_gs1_full", "drishti_gs1_crop512"),
    "ORIGA": ("origa_full",),
    "MESSIDOR": ("messidor_riga_full",),
}
"""Each camera's sets with disc and cup; the first is scored when the camera is left out."""
DISC_ALONE = ("drions_disc", "idrid20_disc", "palm_disc")


@dataclass(frozen=True)
class Eye:
    """One scored eye; NaN where the ratio is undefined."""

    disc: float
    cup: float
    vcdr: float
    truth: float


@dataclass(frozen=True)
class Data:
    """The folders of the pictures and of their cached crops."""

    folder: Path
    cache: Path
    detector: Bundle

    def learned(self, name: str, book: RecipeBook) -> Crops:
        """ROIs around the experts' discs."""
        side, scale = book.preprocessing.roi_side, book.preprocessing.roi_scale
        return self._kept(
            f"experts-{name}-{side}-{scale}",
            name,
            lambda s: batches.disc_crops(s, side, roi_scale=scale),
        )

    def scored(self, name: str, book: RecipeBook) -> Crops:
        """ROIs as screening places them."""
        if name.endswith("crop512"):
            return self.learned(name, book)
        side, scale = book.preprocessing.roi_side, book.preprocessing.roi_scale
        preprocessing = replace(self.detector.preprocessing, roi_scale=scale)
        finder = Predictor(replace(self.detector, preprocessing=preprocessing))

        def found(image: np.ndarray, mask: np.ndarray) -> roi.Roi:
            where = finder.detect(image).roi
            return where or batches.around_disc(mask, scale)

        return self._kept(
            f"found-{name}-{side}-{scale}", name, lambda s: batches.crops_of(s, side, found)
        )

    def opened(self, name: str) -> LabelledSet:
        """One set of the manifest."""
        return open_set(f"manifest:{self.folder}/manifest.csv?set={name}")

    def _kept(self, key: str, name: str, read: Callable[[LabelledSet], Crops]) -> Crops:
        file = self.cache / f"{key}.npz"
        if not file.is_file():
            crops = read(self.opened(name))
            self.cache.mkdir(parents=True, exist_ok=True)
            np.savez(
                file,
                ids=np.array(crops.ids),
                images=crops.images.numpy(),
                masks=crops.masks.numpy(),
                vcdr=crops.vcdr,
            )
        held = np.load(file)
        return Crops(
            tuple(map(str, held["ids"])),
            torch.from_numpy(held["images"]),
            torch.from_numpy(held["masks"]),
            held["vcdr"],
            (name,) * len(held["ids"]),
        )


def train(data: Data, book: RecipeBook, sets: Sequence[str], encoder: Path | None) -> Network:
    """The recipe's segmenter of one seed, in this process."""
    recipe = book.segmenter
    crops = batches.join([data.learned(name, book) for name in sets])
    learn, validate = batches.split(crops.persons)
    loop.seed_generators(recipe.seed)
    network = networks.build(recipe.network)
    networks.start_from_imagenet(network, encoder)
    network = network.to(memory_format=torch.channels_last)
    learner = SourceLearner(network, recipe, crops.take(learn), crops.take(validate))

    def tell(state: dict) -> None:
        print("   ", loop.progress(state["history"], recipe.epochs), flush=True)

    history = loop.run_epochs(learner, recipe.epochs, after_epoch=tell)
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
    history = loop.run_epochs(learner, recipe.epochs)
    print("   ", loop.progress(history, recipe.epochs), flush=True)
    weights = {k: v.contiguous() for k, v in learner.average.module.state_dict().items()}
    adapted = replace(source_only, weights=weights, recipe=recipe.described())
    judgement = gate.judge(
        source_only.build(), adapted.build(), source.take(validate), target, bundle.thresholds
    )
    return bundle.with_network(SOURCE_ONLY, adapted), judgement.checks


def answers(bundle: Bundle, crops: Crops) -> np.ndarray:
    """(N, 2, S, S) probabilities: the mean over turns and members."""
    predictor = Predictor(bundle)
    images = crops.images.permute(0, 2, 3, 1).numpy()
    return np.concatenate(
        [predictor.segment(images[i : i + 8]).mean(1) for i in range(0, len(images), 8)]
    )


def kept_answers(bundle: Bundle, crops: Crops, file: Path) -> np.ndarray:
    """Return `answers` from a file, which is written if it does not exist."""
    if not file.is_file():
        np.savez_compressed(file, maps=answers(bundle, crops).astype(np.float16))
    return np.load(file)["maps"].astype(np.float32)


def score(maps: np.ndarray, crops: Crops, thresholds: Thresholds) -> list[Eye]:
    """Every eye: Dice in the ROI, vCDR against that of the expert's whole mask."""
    eyes = []
    for drawn, mask, truth in zip(
        (thresholds.draw(one).mask for one in maps), crops.masks.numpy(), crops.vcdr, strict=True
    ):
        disc, cup = (scores.dice(of(drawn), of(mask)) or 0.0 for of in (disc_of, cup_of))
        ratio = biomarkers.vcdr(drawn)
        eyes.append(Eye(disc, cup, np.nan if ratio is None else ratio, truth))
    return eyes


def figures(eyes: Sequence[Eye]) -> dict[str, float]:
    """Mean Dice, vCDR MAE, bias and correlation, with the count."""
    off = np.array([eye.vcdr - eye.truth for eye in eyes])
    both = np.isfinite(off)
    pairs = np.array([(eye.vcdr, eye.truth) for eye in eyes])[both]
    return {
        "eyes": len(eyes),
        "disc": float(np.mean([eye.disc for eye in eyes])),
        "cup": float(np.mean([eye.cup for eye in eyes])),
        "mae": float(np.abs(off[both]).mean()),
        "bias": float(off[both].mean()),
        "r": float(np.corrcoef(pairs.T)[0, 1]),
    }


def table(rows: dict[str, dict[str, float]]) -> str:
    """One line per left-out camera, and their mean."""
    lines = [f"{'left out':12} {'eyes':>5} {'disc':>6} {'cup':>6} {'MAE':>6} {'bias':>6} {'r':>6}"]
    names = ("disc", "cup", "mae", "bias", "r")
    for camera, row in rows.items():
        values = " ".join(f"{row[n]:6.3f}" for n in names)
        lines.append(f"{camera:12} {row['eyes']:5.0f} {values}")
    mean = " ".join(f"{np.mean([row[n] for row in rows.values()]):6.3f}" for n in names)
    lines.append(f"{'mean':12} {'':5} {mean}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, score, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="FOLDER", help="holds manifest.csv")
    add("--encoder", type=Path, metavar="FILE", help="ImageNet weights, safetensors")
    add("--recipe", choices=BOOKS, default="laptop")
    add("--change", action="append", default=[], metavar="FIELD=VALUE")
    add("--members", type=int, default=1, help="seeds that answer together")
    add(
        "--thresholds", type=float, nargs=2, metavar=("DISC", "CUP"), help="instead of the recipe's"
    )
    add("--only", action="append", choices=CAMERAS, help="leave out these alone")
    add(
        "--learn", action="append", choices=CAMERAS, help="learn from these alone, score all others"
    )
    add("--cup-sets-alone", action="store_true", help="without DRIONS, IDRiD and PALM")
    add("--adapt", choices=METHODS, help="adapt the bundles in --out to the camera left out")
    add("--change-adaptation", action="append", default=[], metavar="FIELD=VALUE")
    add("--targets", type=int, help="adapt to, and score, at most so many eyes of each camera")
    add("--detector", default=bundles.default_folder(), metavar="BUNDLE")
    add("--bundle", type=Path, metavar="FOLDER", help="write the ensemble of all folds here")
    add("--cache", type=Path, default=Path("runs/crops"), metavar="FOLDER")
    add("--out", type=Path, required=True, metavar="FOLDER")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    data = Data(given.data, given.cache, bundles.load(given.detector))
    book = changed(BOOKS[given.recipe](), SOURCE_ONLY, given.change)
    if given.thresholds:
        disc, cup = given.thresholds
        book = replace(book, thresholds=replace(book.thresholds, disc=disc, cup=cup))
    given.out.mkdir(parents=True, exist_ok=True)
    if given.adapt:
        changes = [f"method={given.adapt}", *given.change_adaptation]
        book = changed(book, ADAPTED, changes)
        return adapt_all(data, book, given.out, given.only or CAMERAS, given.targets)
    rows = {}
    trained: Bundle | None = None
    for camera in given.only or CAMERAS:
        if given.learn and camera in given.learn:
            continue
        folder = given.out / camera
        if bundles.exists(folder):
            bundle = with_levels(bundles.load(folder), book)
        elif given.learn and trained:
            bundle = trained
        else:
            learned = given.learn or [name for name in CAMERAS if name != camera]
            sets = [name for one in learned for name in CAMERAS[one]]
            sets += [] if given.cup_sets_alone else DISC_ALONE
            start, parts = time.monotonic(), []
            for seed in range(book.segmenter.seed, book.segmenter.seed + given.members):
                print(f"without {camera}, seed {seed}: {', '.join(sets)}", flush=True)
                recipe = replace(book.segmenter, seed=seed, members=1)
                parts.append(train(data, replace(book, segmenter=recipe), sets, given.encoder))
            bundle = assembled(data.detector, book, parts)
            print(f"    {time.monotonic() - start:.0f} s", flush=True)
            bundles.save(bundle, folder)
            trained = bundle
        crops = data.scored(CAMERAS[camera][0], book)
        maps = kept_answers(bundle, crops, given.out / f"{camera}.npz")
        rows[camera] = figures(score(maps, crops, bundle.thresholds))
        print(table(rows), flush=True)
        (given.out / "figures.json").write_text(json.dumps(rows, indent=2) + "\n")
    if given.bundle:
        folds = [bundles.load(given.out / camera).networks[SOURCE_ONLY] for camera in CAMERAS]
        bundles.save(ensemble(data, book, folds, rows), given.bundle)
    return 0


def ensemble(
    data: Data, book: RecipeBook, folds: Sequence[Network], rows: dict[str, dict[str, float]]
) -> Bundle:
    """The folds as members of one segmenter, with what they learned from and how they scored."""
    bundle = assembled(data.detector, book, folds)
    names = [name for sets in CAMERAS.values() for name in sets] + list(DISC_ALONE)
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
            "before": kept_answers(bundle, every, out / f"{camera}.npz")[chosen],
            "after": answers(adapted, crops),
        }
        before[camera], after[camera] = (
            figures(score(maps, crops, bundle.thresholds)) for maps in found.values()
        )
        passed[camera] = all(check.passed for check in checks)
        print(camera, *checks, sep="\n    ", flush=True)
        print("    un-adapted", before[camera], "\n    adapted", after[camera], flush=True)
    print("un-adapted", table(before), "adapted", table(after), sep="\n")
    print("passed the gate:", ", ".join(name for name in passed if passed[name]) or "none")
    return 0


def with_levels(bundle: Bundle, book: RecipeBook) -> Bundle:
    """The bundle with the recipe's thresholds for disc and cup."""
    found = bundle.thresholds
    levels = replace(book.thresholds, disc_found=found.disc_found, confidence=found.confidence)
    return replace(bundle, thresholds=levels)


def assembled(detector: Bundle, book: RecipeBook, parts: Sequence[Network]) -> Bundle:
    """The trained members as one bundle, with the detector."""
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
