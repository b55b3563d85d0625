"""jobs/calibrate.py from the command line to a bundle with a risk model."""

import numpy as np
import pytest
from PIL import Image
from test_models_bundle import tiny_bundle

from fundus.field import roi
from fundus.models import bundle as bundles
from fundus.models.predictor import Detection
from jobs import calibrate

SIDE = 64


class Reader:
    """Replaces the predictor, and takes disc and cup from the grey levels of a picture."""

    side = SIDE

    def __init__(self, bundle):
        self.thresholds = bundle.thresholds

    def place(self, image, *, precropped):
        assert precropped
        return Detection(np.nan, roi.whole(*image.shape[:2]))

    def segment_roi(self, image, where):
        crop = roi.crop(image, where, self.side)
        maps = np.stack([crop[..., 0] > 50, crop[..., 0] > 150]).astype(np.float32)
        return maps[None].repeat(8, axis=0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(calibrate, "Predictor", Reader)
    bundles.save(tiny_bundle(), tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def eyes(tmp_path):
    """A manifest of 41 precropped eyes with discs of 40 rows: four with each cup of 10, 12 ... 28
    rows, and one without a cup. Healthy are those up to 18 rows and two of the four with 20."""
    distance = np.hypot(*(np.mgrid[:SIDE, :SIDE] + 0.5 - SIDE / 2))
    lines = ["image,id,glaucoma,set"]
    for number in range(41):
        cup = (10 + number // 2) / 2 if number < 40 else 0
        picture = 100 * (distance < 20).astype(np.uint8) + 100 * (distance < cup)
        Image.fromarray(picture.astype(np.uint8)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{number},{int(number >= 22)},drawn")
    (tmp_path / "eyes.csv").write_text("\n".join(lines))
    return f"manifest:{tmp_path / 'eyes.csv'}"


def test_a_bundle_is_calibrated_in_place(folder, eyes, capsys):
    words = ["--bundle", str(folder), "--set", eyes, "--specificity", "0.8", "--precropped"]
    assert calibrate.main(words) == 0
    calibrated = bundles.load(folder)
    model = calibrated.risk
    assert (model.healthy, model.glaucoma, model.set) == (22, 18, "drawn")
    assert model.scores["unmeasured"] == 1 and model.specificity == 0.8
    spared, referred = (model.risk(rows / 40, 0.0) for rows in (18, 20))
    assert spared < model.threshold < referred  # spares 20 of 22 healthy eyes; 16 would be too few
    printed = capsys.readouterr().out
    assert "drawn: 22 healthy eyes and 18 with glaucoma; 1 without a risk" in printed
    assert f"referral threshold: risk {model.threshold:.4f}" in printed
    assert f"calibrated: bundle {calibrated.digest[:12]}" in printed


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"--specificity": "1.2"}, "--specificity 1.2"),
        ({"--bundle": "nowhere"}, "nowhere is no bundle"),
        ({"--set": "atlas:nowhere"}, "layouts"),
        ({"--set": "{eyes}?glaucoma=0"}, "0 eyes with glaucoma and 22 without"),
    ],
)
def test_a_failed_calibration_exits_with_2_and_one_sentence_and_changes_nothing(
    folder, eyes, capsys, wrong, sentence
):
    before = (folder / "bundle.json").read_bytes()
    args = {"--bundle": str(folder), "--set": eyes} | wrong
    words = [word.replace("{eyes}", eyes) for pair in args.items() for word in pair]
    assert calibrate.main([*words, "--precropped"]) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
    assert (folder / "bundle.json").read_bytes() == before
