import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fundus.field.levels import percentile

pictures = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@given(pictures, st.floats(0, 100), st.data())
def test_the_percentile_is_numpys(levels, percent, data):
    assert percentile(levels, percent) == pytest.approx(np.percentile(levels, percent))
    inside = data.draw(arrays(np.uint8, levels.shape, elements=st.integers(0, 1)))
    if inside.any():
        expected = np.percentile(levels[inside > 0], percent)
        assert percentile(levels, percent, inside) == pytest.approx(expected)
