"""The table of detection counts hits and misses correctly."""

import pytest

from fundus.evaluation import detection
from fundus.evaluation.detection import Answer


def test_a_row_counts_unlabelled_pictures_apart() -> None:
    answers = [
        Answer("s", "1", 0.9, True, True),
        Answer("s", "2", 0.8, True, False),
        Answer("s", "3", 0.1, False, False),
        Answer("s", "4", 0.2, False, None),
    ]
    row = detection.summarise(answers)
    assert (row["pictures"], row["found"], row["no_disc"]) == (4, 2, 2)
    assert (row["labelled"], row["centre_in_disc"]) == (3, 1)
    assert row["share"]["value"] == pytest.approx(1 / 3)
    assert "1 of 3" in detection.as_text([row])
    assert detection.summarise(answers[3:])["centre_in_disc"] is None
