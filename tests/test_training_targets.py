"""A target is read as in screening; pictures that cannot be used are counted, or refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dicom_files import dicom_file
from PIL import Image
from test_models_bundle import tiny_bundle

from fundus.datasets.public import open_set
from fundus.errors import ConfigurationError
from fundus.training.targets import read_target

GREY = np.full((40, 48, 3), 120, np.uint8)


def folder(path: Path, *, junk: int) -> str:
    """Two JPEGs, a PNG, two DICOM objects, one of them without a suffix, and files of text."""
    path.mkdir()
    for name in ("1.jpg", "2.jpg", "3.png"):
        Image.fromarray(GREY).save(path / name)
    (path / "4.dcm").write_bytes(dicom_file(GREY))
    (path / "5").write_bytes(dicom_file(GREY))
    for number in range(junk):
        (path / f"junk-{number}.jpg").write_text("no picture")
    return f"folder:{path}"


def test_dicom_jpeg_and_png_are_read_and_junk_is_counted(tmp_path: Path) -> None:
    found = read_target([folder(tmp_path / "new", junk=3)], tiny_bundle(), precropped=True)
    assert len(found.crops) == 5
    [(reason, count)] = found.left_out.items()
    assert count == 3 and "text" in reason
    [described] = found.described
    assert (described["name"], described["count"]) == ("new", 5)
    assert "5 of 8 pictures used" in str(found)


def test_a_target_with_few_usable_pictures_is_refused_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"5 of 11 pictures.*6: .*text"):
        read_target([folder(tmp_path / "new", junk=6)], tiny_bundle(), precropped=True)


def test_a_target_in_which_no_disc_is_found_is_refused_at_once(tmp_path: Path) -> None:
    known = tiny_bundle()
    blind = replace(known, thresholds=replace(known.thresholds, disc_found=1.1))
    with pytest.raises(ConfigurationError, match="5: no optic disc"):
        read_target([folder(tmp_path / "new", junk=0)], blind, precropped=False)


def test_the_digest_of_a_target_depends_on_content_and_not_on_location(tmp_path: Path) -> None:
    """Training on pictures that were moved resumes."""
    first, moved = (folder(tmp_path / name, junk=0) for name in ("new", "moved"))
    digests = [
        read_target([spec], tiny_bundle(), precropped=True).described[0]["digest"]
        for spec in (first, moved)
    ]
    Image.fromarray(GREY + 1).save(tmp_path / "moved/3.png")
    changed = read_target([moved], tiny_bundle(), precropped=True).described[0]["digest"]
    assert digests[0] == digests[1] != changed


def relabelled(folder: Path, kind: str) -> str:
    """The spec of a set of four drawn eyes, whose masks are "true", "noise" or "unreadable"."""
    draw = np.random.default_rng(0)
    rows = ["set,id,image,mask,glaucoma,annotation"]
    for sample in open_set("synthetic:?camera=hospital&count=4&seed=2").samples:
        mask = sample.read_mask()
        assert mask is not None
        labels = draw.integers(0, 3, mask.shape, np.uint8) if kind == "noise" else mask
        Image.fromarray(labels).save(folder / f"{sample.id}.png")
        if kind == "unreadable":
            (folder / f"{sample.id}.png").write_bytes(b"no picture")
        sick = int(kind == "noise")
        rows.append(f"t,{sample.id},{sample.image},{sample.id}.png,{sick},disc+cup")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return f"manifest:{folder / 'manifest.csv'}"


def test_the_labels_of_a_target_are_not_read(tmp_path: Path) -> None:
    """True masks, noise and files that are no pictures give one and the same target."""
    first, *others = [
        read_target([relabelled(tmp_path, kind)], tiny_bundle(), precropped=True)
        for kind in ("true", "noise", "unreadable")
    ]
    assert np.isnan(first.crops.vcdr).all() and not first.crops.masks.any()
    for other in others:
        assert (other.crops.ids, other.described) == (first.crops.ids, first.described)
        assert torch.equal(other.crops.images, first.crops.images)
