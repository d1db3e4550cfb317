from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgefl_device_runtime.tasks.clipping import clipped


@given(
    arrays.arrays(np.float32, st.integers(0, 20), elements=st.floats(-(2.0**60), 2.0**60, width=32)),
    st.floats(2.0**-10, 2.0**20, width=32),
)
def test_clipping_bounds_the_norm_and_keeps_the_direction(vector, bound):
    found = clipped(vector, bound)
    before, after = (float(np.linalg.norm(each.astype(np.float64))) for each in (vector, found))
    assert after <= bound * 1.0001
    if before <= bound * 0.9999:
        assert found is vector
    assert np.all(np.sign(found) * np.sign(vector) >= 0)


def test_without_a_bound_nothing_is_clipped():
    vector = np.full(3, 1e9, np.float32)
    assert clipped(vector, 0.0) is vector
