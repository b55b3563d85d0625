"""Both eyes of a person are on the same side of every split."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fundus.datasets import batches
from fundus.datasets.public import open_set
from fundus.datasets.samples import Sample, folded, person_of
from fundus.evaluation.calibration import folds


def sample(name: str, subject: str = "") -> Sample:
    return Sample(id=name, set="a", image=Path(f"{name}.jpg"), subject=subject)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (sample("N-1-L"), sample("N-1-R"), True),
        (sample("RET002OD"), sample("RET002OS"), True),
        (sample("N-1-L"), sample("N-2-R"), False),
        (sample("g0001"), sample("g0002"), False),
        (sample("x", "p7"), sample("y", "p7"), True),
        (sample("N-1-L", "p7"), sample("N-1-R", "p8"), False),
    ],
)
def test_a_person_is_known_by_the_subject_or_by_the_names_of_a_pair(
    one: Sample, other: Sample, same: bool
) -> None:
    assert (person_of(one) == person_of(other)) == same


def test_the_validation_split_keeps_persons_together() -> None:
    persons = [f"p{number // 2}" for number in range(64)]
    learn, validate = batches.split(persons)
    assert len(learn) + len(validate) == 64 and len(validate) == 8
    assert not {persons[i] for i in learn} & {persons[i] for i in validate}


def test_without_persons_every_eighth_picture_validates() -> None:
    """The published bundles were trained in this way."""
    _, validate = batches.split([str(number) for number in range(17)])
    assert validate.tolist() == [7, 15]


def test_folds_of_a_manifest_keep_its_subjects_together(tmp_path: Path) -> None:
    lines = ["image,id,subject"]
    for number in range(24):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{number},p{number // 2}")
    (tmp_path / "eyes.csv").write_text("\n".join(lines))
    samples = open_set(f"manifest:{tmp_path / 'eyes.csv'}").samples
    sides = [{person_of(s) for s in folded(samples, fold)} for fold in ("learn", "held")]
    assert not sides[0] & sides[1] and all(sides)
    assert sum(len(folded(samples, fold)) for fold in ("learn", "held")) == 24


def test_calibration_holds_back_both_eyes_of_a_person_together() -> None:
    persons = np.array([f"p{number % 30}" for number in range(60)])
    glaucoma = np.arange(60) < 12
    held = list(folds(glaucoma, persons))
    assert sum(fold.sum() for fold in held) == 60
    for fold in held:
        assert not set(persons[fold]) & set(persons[~fold])
