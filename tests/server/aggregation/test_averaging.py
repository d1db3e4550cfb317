from __future__ import annotations

import numpy as np
import pytest

from edgefl_server.aggregation import Update, Updates
from edgefl_server.aggregation.averaging import average, by_examples, equally
from edgefl_server.aggregation.server_optimizers import Sgd

ONE, THREE = np.array([1.0, 2.0], np.float32), np.array([3.0, -2.0], np.float32)
UPDATES = Updates.of([Update("a", 1, {"delta": ONE, "s": ONE}), Update("b", 3, {"delta": THREE, "s": THREE})])


def test_each_section_has_its_own_weighting_and_all_are_read_at_once() -> None:
    found = average(UPDATES, {"delta": by_examples, "s": equally})
    np.testing.assert_array_equal(found["delta"].mean(), [2.5, -1.0])
    np.testing.assert_array_equal(found["s"].mean(), [2.0, 0.0])
    assert (found["delta"].weight, found["s"].weight) == (4.0, 2.0)


def test_a_weighting_is_any_function_of_an_update() -> None:
    late = Updates.of([Update("a", 1, {"delta": ONE}), Update("b", 1, {"delta": THREE}, staleness=3)])
    found = average(late, {"delta": lambda each: by_examples(each) / (1 + each.staleness) ** 0.5})["delta"]
    np.testing.assert_allclose(found.mean(), (ONE + 0.5 * THREE) / 1.5)


def test_a_section_that_nobody_sends_has_an_average_without_elements() -> None:
    assert average(UPDATES, {"control": equally})["control"].mean().size == 0


@pytest.mark.parametrize(("rate", "factor"), [(None, 1.0), (1.0, 1.0), (0.25, 0.25)])
def test_sgd_goes_along_the_average(rate: float | None, factor: float) -> None:
    found = average(UPDATES, {"delta": by_examples})["delta"]
    mean = found.mean()
    change, slots = Sgd(rate).step(found, {})
    np.testing.assert_allclose(change, factor * mean, rtol=1e-15)
    assert slots == Sgd(rate).init(2) == {}


@pytest.mark.parametrize("size", [1, 2, 3, 1000, (1 << 14) - 1, (1 << 14) + 1])
@pytest.mark.parametrize("factor", [1.0, 7.0, 1e9, 1 / 3])
def test_the_bits_are_those_of_one_update_after_the_other(size: int, factor: float) -> None:
    rng = np.random.default_rng(size)
    for count in (1, 15, 16, 17, 70):
        vectors = [(rng.normal(size=size) * 10.0 ** rng.integers(-6, 6)).astype(np.float32) for _ in range(count)]
        updates = [Update(f"t{index:03d}", index + 1, {"delta": each}) for index, each in enumerate(vectors)]
        total = np.zeros(size)
        for update, vector in zip(updates, vectors, strict=True):
            total += vector.astype(np.float64) * (update.num_examples * factor)
        found = average(Updates.of(updates), {"delta": lambda each: each.num_examples * factor})["delta"]
        assert found.total.tobytes() == total.tobytes(), (size, count)
