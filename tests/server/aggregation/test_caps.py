from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl_server.aggregation.caps import count_examples

MOST = 2**60
said = st.lists(st.integers(1, 2**53), min_size=1, max_size=30)


def share(of: int, examples: tuple[int, ...]) -> float:
    return examples[of] / sum(examples)


@given(st.integers(1, 10_000), st.integers(1, 40), st.integers(1, 2**53), st.sampled_from([1.0, 2.5, 10.0]))
def test_one_liar_among_honest_devices_has_a_bounded_share(rows: int, honest: int, lie: int, ratio: float) -> None:
    counted = count_examples([*[rows] * honest, lie], MOST, ratio)
    assert share(honest, counted.examples) <= max(ratio / (honest + ratio), 1 / (honest + 1)) + 1e-12
    if honest >= 2:
        assert share(honest, counted.examples) <= (0.5 if lie > ratio * rows else max(4 / (honest + 4), 0.5))
    # A device that says too little takes nothing from the others but their distance to itself.
    assert min(counted.examples) >= min(rows, lie)


@given(said, st.randoms())
def test_how_much_a_device_counts_does_not_depend_on_the_order(claims: list[int], random) -> None:
    order = list(range(len(claims)))
    random.shuffle(order)
    shuffled = count_examples([claims[index] for index in order], MOST, 10.0)
    straight = count_examples(claims, MOST, 10.0)
    assert shuffled.examples == tuple(straight.examples[index] for index in order)
    assert (shuffled.capped, shuffled.cap) == (straight.capped, straight.cap)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=30), st.integers(1, 1000))
def test_honest_devices_within_the_ratio_count_for_what_they_say(sizes: list[int], unit: int) -> None:
    claims = [size * unit for size in sizes]
    counted = count_examples(claims, MOST, 10.0)
    assert counted.examples == tuple(claims)
    assert (counted.capped, counted.cap) == (0, 0)


@given(said, st.integers(1, 2**53), st.sampled_from([0.0, 1.0, 10.0]))
def test_nobody_counts_for_more_than_they_say_or_the_run_allows_nor_for_nothing(claims, most, ratio) -> None:
    counted = count_examples(claims, most, ratio)
    for counts, claim in zip(counted.examples, claims, strict=True):
        assert 1 <= counts <= min(claim, most)
    assert counted.capped == sum(c < s for c, s in zip(counted.examples, claims, strict=True))
    assert counted.cap == (max(counted.examples) if counted.capped else 0)


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ([100, 900], (100, 900)),
        ([100, 2**53], (100, 1000)),  # two devices: measured by the smaller
        ([100, 100, 2**53], (100, 100, 200)),  # three: no more than all others together
        ([7, 7, 70], (7, 7, 28)),  # far above the median: no more than all others together, or four times it
        ([7, 7, 71], (7, 7, 14)),  # above the ratio: not believed
        ([5, 16, 35, 61], (5, 16, 35, 61)),  # unlike, and honest
        ([2**53], (2**53,)),  # nobody to compare it with
        ([], ()),
    ],
)
def test_the_cap_of_small_rounds(claims: list[int], expected: tuple[int, ...]) -> None:
    assert count_examples(claims, MOST, 10.0).examples == expected


def test_without_a_ratio_only_the_runs_own_number_holds() -> None:
    counted = count_examples([1, 1, 2**53], 1000, 0.0)
    assert (counted.examples, counted.capped, counted.cap) == ((1, 1, 1000), 1, 1000)
