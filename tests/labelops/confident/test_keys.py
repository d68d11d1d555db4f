"""Oracle: the order of the floats themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelops.confident.keys import MAX_KEY, float_of_keys, order_keys


@pytest.mark.parametrize("width", [32, 64])
@given(data=st.data())
def test_order_keys__are_ordered_as_the_floats_are(width, data):
    floats = st.floats(allow_nan=False, width=width)
    values = np.array(data.draw(st.lists(floats, max_size=20)), f"float{width}")
    keys = order_keys(values)
    assert np.array_equal(keys[:, None] < keys, values[:, None] < values)
    assert np.array_equal(keys[:, None] == keys, values[:, None] == values)
    assert np.array_equal(float_of_keys(keys, values.dtype), values)
    assert (keys < MAX_KEY).all()


def test_order_keys__refuses_half_precision():
    with pytest.raises(TypeError, match="must be float32 or float64, got float16"):
        order_keys(np.zeros(1, np.float16))
