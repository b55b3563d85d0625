"""The four cameras whose pictures `leave_one_out.py` leaves out in turn: their crops and scores."""

from collections.abc import Callable, Sequence
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
from fundus.models.bundle import Bundle
from fundus.models.predictor import Predictor, ready
from fundus.models.thresholds import Thresholds
from fundus.models.turns import Profile
from fundus.training.recipes import RecipeBook

CAMERAS = {
    "REFUGE": ("refuge_train_crop512",),
    "Drishti-GS": ("drishti_gs1_full", "drishti_gs1_crop512"),
    "ORIGA": ("origa_full",),
    "MESSIDOR": ("messidor_riga_full",),
}
"""Each camera's sets with disc and cup; the first is scored when the camera is left out."""


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
        """Return ROIs around the experts' discs."""
        side, scale = book.preprocessing.roi_side, book.preprocessing.roi_scale
        return self._cached(
            f"experts-{name}-{side}-{scale}",
            name,
            lambda s: batches.disc_crops(s, side, roi_scale=scale),
        )

    def scored(self, name: str, book: RecipeBook) -> Crops:
        """Return ROIs as screening places them."""
        if name.endswith("crop512"):
            return self.learned(name, book)
        side, scale = book.preprocessing.roi_side, book.preprocessing.roi_scale
        preprocessing = replace(self.detector.preprocessing, roi_scale=scale)
        finder = Predictor(replace(self.detector, preprocessing=preprocessing))

        def found(image: np.ndarray, mask: np.ndarray) -> roi.Roi:
            where = finder.detect(image).roi
            return where or batches.around_disc(mask, scale)

        return self._cached(
            f"found-{name}-{side}-{scale}", name, lambda s: batches.crops_of(s, side, found)
        )

    def opened(self, name: str) -> LabelledSet:
        """Open one set of the manifest."""
        return open_set(f"manifest:{self.folder}/manifest.csv?set={name}")

    def _cached(self, key: str, name: str, read: Callable[[LabelledSet], Crops]) -> Crops:
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
        stored = np.load(file)
        return Crops(
            tuple(map(str, stored["ids"])),
            torch.from_numpy(stored["images"]),
            torch.from_numpy(stored["masks"]),
            stored["vcdr"],
            (name,) * len(stored["ids"]),
        )


def predictions(bundle: Bundle, crops: Crops, profile: Profile = "exact") -> np.ndarray:
    """Return (N, 2, S, S) probabilities, averaged over turns and members."""
    predictor = Predictor(ready(bundle, gpu=False, profile=profile))
    images = crops.images.permute(0, 2, 3, 1).numpy()
    return np.concatenate(
        [predictor.segment(images[i : i + 8]).mean(1) for i in range(0, len(images), 8)]
    )


def stored_predictions(bundle: Bundle, crops: Crops, file: Path) -> np.ndarray:
    """Return `predictions` from a file, which is written if it does not exist."""
    if not file.is_file():
        np.savez_compressed(file, maps=predictions(bundle, crops).astype(np.float16))
    return np.load(file)["maps"].astype(np.float32)


def score(maps: np.ndarray, crops: Crops, thresholds: Thresholds) -> list[Eye]:
    """Score each eye: Dice in the ROI, vCDR against that of the expert's whole mask."""
    eyes = []
    for drawn, mask, truth in zip(
        (thresholds.draw(one).mask for one in maps), crops.masks.numpy(), crops.vcdr, strict=True
    ):
        disc, cup = (scores.dice(of(drawn), of(mask)) or 0.0 for of in (disc_of, cup_of))
        ratio = biomarkers.vcdr(drawn)
        eyes.append(Eye(disc, cup, np.nan if ratio is None else ratio, truth))
    return eyes


def figures(eyes: Sequence[Eye]) -> dict[str, float]:
    """Return mean Dice, vCDR MAE, bias and correlation, with the count of eyes."""
    errors = np.array([eye.vcdr - eye.truth for eye in eyes])
    both = np.isfinite(errors)
    pairs = np.array([(eye.vcdr, eye.truth) for eye in eyes])[both]
    return {
        "eyes": len(eyes),
        "disc": float(np.mean([eye.disc for eye in eyes])),
        "cup": float(np.mean([eye.cup for eye in eyes])),
        "mae": float(np.abs(errors[both]).mean()),
        "bias": float(errors[both].mean()),
        "r": float(np.corrcoef(pairs.T)[0, 1]),
    }


def table(rows: dict[str, dict[str, float]]) -> str:
    """Return a table with one line per left-out camera, and their mean."""
    lines = [f"{'left out':12} {'eyes':>5} {'disc':>6} {'cup':>6} {'MAE':>6} {'bias':>6} {'r':>6}"]
    names = ("disc", "cup", "mae", "bias", "r")
    for camera, row in rows.items():
        values = " ".join(f"{row[n]:6.3f}" for n in names)
        lines.append(f"{camera:12} {row['eyes']:5.0f} {values}")
    mean = " ".join(f"{np.mean([row[n] for row in rows.values()]):6.3f}" for n in names)
    lines.append(f"{'mean':12} {'':5} {mean}")
    return "\n".join(lines)
