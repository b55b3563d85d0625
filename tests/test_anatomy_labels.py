import numpy as np
import pytest

from fundus.anatomy import labels
from fundus.anatomy.labels import compose, cup_of, disc_of


def test_refuge_values_become_background_rim_and_cup():
    mask = labels.from_refuge(np.array([[255, 128, 0]], np.uint8))
    assert mask.dtype == np.uint8
    assert mask.tolist() == [[0, 1, 2]]
    assert disc_of(mask).tolist() == [[False, True, True]]
    assert cup_of(mask).tolist() == [[False, False, True]]


@pytest.mark.parametrize(
    ("convert", "pixels", "reason"),
    [
        (labels.from_refuge, [[0, 127, 255]], "127"),
        (labels.from_plain, [[0, 1, 2, 3]], "3"),
        (lambda pixels: labels.from_plain(pixels, ("disc",)), [[0, 1, 2]], "2"),
        (labels.from_binary, [[0, 7, 255]], "3 values"),
        (labels.from_refuge, [[[0, 128, 255]]], "one channel"),
    ],
)
def test_unexpected_masks_are_refused_with_a_reason(convert, pixels, reason):
    with pytest.raises(ValueError, match=reason):
        convert(np.array(pixels, np.uint8))


@pytest.mark.parametrize(
    ("consensus", "expected"),
    [(1, [0, 1, 1, 2, 2]), (3, [0, 0, 0, 1, 2]), (4, [0, 0, 0, 0, 2])],
)
def test_soft_maps_are_cut_where_enough_experts_agree(consensus, expected):
    disc = np.array([[0, 64, 127, 191, 255]], np.uint8)
    cup = np.array([[0, 0, 0, 64, 255]], np.uint8)
    assert labels.from_soft(disc, cup, consensus=consensus).tolist() == [expected]


def test_binary_masks_need_no_cup():
    disc = np.array([[0, 255, 255]], np.uint8)
    assert labels.from_binary(disc).tolist() == [[0, 1, 1]]
    assert labels.from_binary(disc, np.array([[1, 0, 1]])).tolist() == [[0, 1, 2]]


def test_a_cup_outside_its_disc_becomes_background():
    assert compose(np.array([[0, 1, 1]], bool), np.array([[1, 0, 1]], bool)).tolist() == [[0, 1, 2]]
