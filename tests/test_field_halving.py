"""Halving keeps means and places, and never goes below the size that is asked for."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fundus.field.halving import halved

SIDES = st.integers(1, 70)


@given(SIDES, SIDES, st.integers(1, 40), st.randoms(use_true_random=False))
def test_each_pixel_is_the_mean_of_the_pixels_that_it_covers(height, width, least, random) -> None:
    draw = np.random.default_rng(random.getrandbits(32))
    image = draw.integers(0, 256, (height, width, 3), np.uint8)
    small, factor = halved(image, max(height, width), least)
    assert factor == 1 or max(height, width) >= factor * least
    rows, columns = small.shape[:2]
    covered = image[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor, 3)
    assert np.abs(small - covered.mean(axis=(1, 3))).max() <= 1.5  # each halving rounds


def test_a_picture_is_halved_as_often_as_the_length_allows() -> None:
    image = np.zeros((1025, 800, 3), np.uint8)
    assert [halved(image, 1024, least)[1] for least in (1025, 513, 512, 257, 256)] == [
        1,
        1,
        2,
        2,
        4,
    ]
    assert halved(image, 1024, 512)[0].shape == (512, 400, 3)
