import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from fundus.datasets.public import open_set
from fundus.models import architectures, networks
from fundus.models import bundle as bundles
from fundus.models.bundle import ADAPTED, DETECTOR, SOURCE_ONLY, Bundle, Network, Preprocessing
from jobs import evaluate

SIDE = 32


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A manifest of three drawn eyes, one healthy, in pictures of 48 x 40 pixels."""
    folder = tmp_path_factory.mktemp("drawn")
    rows, columns = np.mgrid[:40, :48] + 0.5
    lines = ["image,mask,id,glaucoma,set"]
    for number in range(3):
        distance = np.hypot(rows - 20, columns - 24 - number)
        mask = (distance < 12).astype(np.uint8) + (distance < 6)
        picture = np.stack([60 + 60 * mask] * 3, axis=-1)
        Image.fromarray(picture.astype(np.uint8)).save(folder / f"{number}.png")
        Image.fromarray(mask.astype(np.uint8)).save(folder / f"{number}_mask.png")
        lines.append(f"{number}.png,{number}_mask.png,eye{number},{int(number > 0)},drawn")
    (folder / "manifest.csv").write_text("\n".join(lines))
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, drawn):
    """A bundle of small random networks; its adapted network was trained on the drawn eyes."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # two threads on two busy cores: 1.6 s per picture instead of 0.07 s
    deeplab = architectures.DeepLabConfig(aspp_channels=8, low_channels=8)
    configs = {
        DETECTOR: architectures.UNetConfig(width=2),
        SOURCE_ONLY: deeplab,
        ADAPTED: deeplab,
    }
    made = {
        role: Network(config, networks.build(config).state_dict())
        for role, config in configs.items()
    }
    seen = {"name": "drawn", "role": "target", "digest": open_set(f"manifest:{drawn}").digest()}
    made[ADAPTED] = replace(made[ADAPTED], data=(seen,))
    folder = tmp_path_factory.mktemp("tiny")
    bundles.save(Bundle(made, Preprocessing(detector_side=SIDE, roi_side=SIDE)), folder)
    return folder


@pytest.mark.parametrize("crops", [["--precropped"], []])
def test_two_bundles_are_evaluated_on_a_set_from_end_to_end(tmp_path, capsys, drawn, tiny, crops):
    out = tmp_path / "out"
    argv = ["--bundle", str(tiny), "--target-supervised", str(tiny), "--out", str(out), *crops]
    assert evaluate.main([*argv, "--set", f"manifest:{drawn}?set=drawn", "--limit", "2"]) == 0
    everything = json.loads((out / "evaluation.json").read_text())
    rows = {row["model"]: row for row in everything["rows"]}
    assert list(rows) == ["target-supervised", "source-only", "adapted", "ensemble"]
    assert all(row["set"] == "drawn" and row["eyes"] == 2 for row in rows.values())
    assert rows["target-supervised"] == rows["source-only"] | {"model": "target-supervised"}
    assert len(everything["eyes"]) == 4 * 2
    printed = capsys.readouterr().out
    assert "ensemble" in printed and str(out) in printed
    assert {file.name for file in out.iterdir()} == {
        "table.txt",
        "table.csv",
        "evaluation.json",
        *(f"worst_drawn_{model}.png" for model in rows),
    }


def test_detection_alone_needs_no_segmenter(tmp_path, capsys, drawn, tiny):
    alone = bundles.load(tiny).without(ADAPTED).without(SOURCE_ONLY)
    sure = replace(alone, thresholds=replace(alone.thresholds, disc_found=0.0))
    bundles.save(sure, tmp_path / "alone")
    argv = ["--bundle", str(tmp_path / "alone"), "--set", f"manifest:{drawn}", "--detection"]
    assert evaluate.main([*argv, "--out", str(tmp_path / "out")]) == 0
    everything = json.loads((tmp_path / "out/detection.json").read_text())
    (row,) = everything["rows"]
    assert (row["pictures"], row["no_disc"], row["labelled"]) == (3, 0, 3)
    assert row["centre_in_disc"] == sum(answer["right"] for answer in everything["answers"])
    assert "centre in disc" in capsys.readouterr().out


def test_a_set_that_was_used_in_training_is_noted(tmp_path, capsys, drawn, tiny):
    argv = [
        "--bundle",
        str(tiny),
        "--out",
        str(tmp_path),
        "--precropped",
        "--set",
        f"manifest:{drawn}",
    ]
    assert evaluate.main([*argv, "--set", f"manifest:{drawn}", "--limit", "1"]) == 0
    assert "Note: adapted of" in capsys.readouterr().out
    everything = json.loads((tmp_path / "evaluation.json").read_text())
    assert {row["set"] for row in everything["rows"]} == {"drawn", "drawn~2"}
    assert all("source_only" not in note for note in everything["about"]["notes"])


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"--bundle": "nowhere"}, "nowhere"),
        ({"--set": "atlas:nowhere"}, "layouts"),
        ({"--set": "manifest:nowhere.csv"}, "nowhere.csv"),
        ({"--limit": "0"}, "--limit 0"),
        ({"--detection": "--precropped"}, "--detection"),
    ],
)
def test_unusable_arguments_exit_with_2_and_one_sentence(
    tmp_path, capsys, drawn, tiny, wrong, named
):
    args = {"--bundle": str(tiny), "--set": f"manifest:{drawn}", "--out": str(tmp_path)} | wrong
    try:
        code = evaluate.main([word for pair in args.items() for word in pair])
    except SystemExit as leaving:
        code = leaving.code
    assert code == 2
    assert named in capsys.readouterr().err.splitlines()[-1]
