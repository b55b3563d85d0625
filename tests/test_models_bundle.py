"""A bundle comes back as it was saved, or is refused in one sentence."""

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from s3_server import Server
from test_anatomy_risk import model as risk_model

from fundus.models import bundle as bundles
from fundus.models.architectures import DeepLabConfig, UNetConfig
from fundus.models.bundle import (
    DETECTOR,
    SOURCE_ONLY,
    Bundle,
    BundleError,
    Network,
    Preprocessing,
)
from fundus.models.networks import build
from fundus.models.predictor import Predictor
from fundus.storage.places import open_place


def tiny_bundle() -> Bundle:
    """Random networks for small pictures."""
    torch.manual_seed(0)
    detector, segmenter = UNetConfig(width=2), DeepLabConfig(aspp_channels=4)
    return Bundle(
        {
            DETECTOR: Network(detector, build(detector).state_dict()),
            SOURCE_ONLY: Network(
                segmenter, build(segmenter).state_dict(), recipe={"name": "quick", "epochs": 1}
            ),
        },
        preprocessing=Preprocessing(detector_side=64, roi_side=32),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bundles.save(tiny_bundle(), tmp_path / "bundle")
    return tmp_path / "bundle"


def test_a_bundle_comes_back_as_it_was_saved(folder: Path) -> None:
    saved, loaded = tiny_bundle(), bundles.load(folder)
    assert loaded.digest == saved.digest
    assert loaded.networks[SOURCE_ONLY].recipe == {"name": "quick", "epochs": 1}
    picture = torch.rand(1, 3, 32, 32)
    for role in saved.networks:
        network, again = saved.networks[role].build(), loaded.networks[role].build()
        assert torch.equal(network(picture), again(picture))


def test_confidence_is_saved_and_a_bundle_without_it_keeps_its_digest(tmp_path: Path) -> None:
    plain = tiny_bundle()
    calibrated = replace(plain, thresholds=replace(plain.thresholds, confidence=(0.9, -3.1)))
    for name, bundle in {"plain": plain, "calibrated": calibrated}.items():
        bundles.save(bundle, tmp_path / name)
        assert bundles.load(tmp_path / name).thresholds == bundle.thresholds
        assert bundles.load(tmp_path / name).digest == bundle.digest
    written = json.loads((tmp_path / "plain" / "bundle.json").read_text())
    assert written["thresholds"] == {"disc_found": 0.5, "disc": 0.5, "cup": 0.5}
    assert calibrated.digest != plain.digest


def test_one_altered_byte_of_weights_is_refused(folder: Path) -> None:
    weights = folder / "source_only.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BundleError, match=r"source_only.safetensors was altered"):
        bundles.load(folder)


def test_an_altered_threshold_is_refused(folder: Path) -> None:
    text = (folder / "bundle.json").read_text()
    altered = json.loads(text)
    altered["thresholds"]["cup"] = 0.1
    (folder / "bundle.json").write_text(json.dumps(altered))
    with pytest.raises(BundleError, match=r"bundle.json was altered"):
        bundles.load(folder)


def test_folders_that_are_no_bundles_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no bundle.json"):
        bundles.load(tmp_path / "nothing")
    (folder / "bundle.json").write_text('{"format": 99}')
    with pytest.raises(BundleError, match="format 1"):
        bundles.load(folder)
    (folder / "bundle.json").write_bytes(b"\x80\x04")
    with pytest.raises(BundleError, match="cannot be read"):
        bundles.load(folder)


def test_a_pickle_in_place_of_weights_is_not_opened(folder: Path) -> None:
    class Stranger:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (Path(folder / "executed"),))  # type: ignore[return-value]

    (folder / "detector.safetensors").write_bytes(pickle.dumps(Stranger()))
    with pytest.raises(BundleError, match="altered"):
        bundles.load(folder)
    assert not (folder / "executed").exists()


def test_weights_of_another_architecture_are_refused(folder: Path) -> None:
    """Matching digests are not enough: the whole manifest may be wrong."""
    bundle = bundles.load(folder)
    wrong = Network(DeepLabConfig(aspp_channels=8), bundle.networks[SOURCE_ONLY].weights)
    bundles.save(bundle.with_network(SOURCE_ONLY, wrong), folder)
    with pytest.raises(BundleError, match="do not fit"):
        Predictor(bundles.load(folder))


def test_a_risk_model_is_saved_and_part_of_the_digest(folder: Path) -> None:
    plain = bundles.load(folder)
    assert plain.risk is None and "risk" not in json.loads((folder / "bundle.json").read_text())
    calibrated = replace(plain, risk=risk_model(scores={"auc": {"value": 0.9}}))
    assert calibrated.digest != plain.digest
    bundles.save(calibrated, folder)
    again = bundles.load(folder)
    assert (again.risk, again.digest) == (calibrated.risk, calibrated.digest)
    altered = json.loads((folder / "bundle.json").read_text())
    altered["risk"]["threshold"] = 0.9
    (folder / "bundle.json").write_text(json.dumps(altered))
    with pytest.raises(BundleError, match=r"bundle.json was altered"):
        bundles.load(folder)


def test_another_network_drops_the_calibration() -> None:
    calibrated = replace(tiny_bundle(), risk=risk_model())
    network = calibrated.networks[SOURCE_ONLY]
    assert calibrated.with_network("adapted", network).risk is None
    assert calibrated.without(DETECTOR).risk is None
    assert calibrated.without("adapted").risk == risk_model()


@pytest.mark.s3
def test_a_bundle_on_s3_is_the_same_bundle(bucket: str, folder: Path, tmp_path: Path) -> None:
    place = f"s3://{bucket}/bundles/mine/"
    assert not bundles.exists(place)
    with pytest.raises(BundleError, match=r"mine/ is no bundle: it has no bundle\.json"):
        bundles.load(place)
    bundles.save(bundles.load(folder), place)
    assert bundles.exists(place)
    assert bundles.load(place).digest == bundles.load(folder).digest
    open_place(place).put("cards/CARD.md", b"a card")
    bundles.copy(place, tmp_path / "copy")
    assert bundles.load(tmp_path / "copy").digest == bundles.load(folder).digest
    assert (tmp_path / "copy" / "cards" / "CARD.md").read_bytes() == b"a card"


@pytest.mark.s3
def test_half_a_bundle_on_s3_is_refused(bucket: str, folder: Path) -> None:
    place = open_place(f"s3://{bucket}/mine")
    bundles.save(bundles.load(folder), place.uri)
    place.put("detector.safetensors", b"of the next bundle")
    with pytest.raises(BundleError, match=r"detector\.safetensors was altered"):
        bundles.load(place.uri)
    place.delete("detector.safetensors")
    with pytest.raises(BundleError, match=r"detector\.safetensors is missing"):
        bundles.load(place.uri)


@pytest.mark.s3
def test_a_place_without_access_is_reported(s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.stranger.items():
        monkeypatch.setenv(name, value)
    place = f"s3://{s3.bucket()}/mine"
    with pytest.raises(BundleError, match=r"bundle\.json cannot be read: access to it is denied"):
        bundles.load(place)
    with pytest.raises(OSError, match="cannot be written: access to it is denied"):
        bundles.save(tiny_bundle(), place)


@pytest.mark.parametrize("document", ["fundus/bundles/default/CARD.md", "README.md"])
def test_documents_give_the_figures_of_the_bundle_in_the_package(document: str) -> None:
    described = json.loads((bundles.default_folder() / "bundle.json").read_text())
    held = described["networks"][SOURCE_ONLY]["scores"]["left out"]
    text = (Path(__file__).parents[1] / document).read_text()
    table = text.partition("| camera left out |")[2].partition("\n\n")[0]
    for camera in ("REFUGE", "Drishti-GS", "ORIGA", "MESSIDOR"):
        (row,) = re.findall(rf"^\| {camera}.*\| (\d+ \|.*) \|$", table, re.MULTILINE)
        figures = held[f"without {camera}"]
        wanted = [figures[name] for name in ("eyes", "disc", "cup", "mae", "bias", "r")]
        written = [float(each) for each in row.split("|")]
        assert written == pytest.approx(wanted, abs=0.0055)
        assert written[:-1] == pytest.approx(wanted[:-1], abs=0.00056)
    assert not re.search(r"^[A-Z]+$", text, re.MULTILINE), "a figure was not filled in"
