"""Each pre-aggregator equals a transcription of its paper in float64, and does what it is for."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl_server.aggregation import FoldError, Update, Updates
from edgefl_server.aggregation.points import Points
from edgefl_server.aggregation.pre_aggregation import (
    AdaptiveClipping,
    AdaptiveZeroing,
    Bucketing,
    NearestNeighbourMixing,
    NormBound,
    PreAggregator,
)

SIZE, COUNT = 203, 11


def drawn(seed: int = 0, count: int = COUNT) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.normal(size=(count, SIZE)) * random.uniform(0.1, 5, (count, 1))).astype(np.float32)


def points_of(vectors: np.ndarray, weights: np.ndarray | None = None, seed: int = 0) -> Points:
    updates = Updates.of([Update(f"t{i:03d}", 5, {"delta": each}) for i, each in enumerate(vectors)])
    return Points(updates.columns("delta"), np.ones(len(vectors)) if weights is None else weights, seed)


def rows(points: Points) -> np.ndarray:
    found = np.empty((len(points), SIZE))
    for part, block in points.blocks():
        found[:, part] = block
    return found


def prepared(part: PreAggregator, vectors: np.ndarray, slots: dict | None = None, seed: int = 0):
    return part.prepare(points_of(vectors, seed=seed), part.init() if slots is None else slots)


def clipped(x: np.ndarray, bound: float) -> np.ndarray:
    return x * np.minimum(1, bound / np.linalg.norm(x, axis=1))[:, None]


@pytest.mark.parametrize(("part", "bound"), [(NormBound(8.0), 8.0), (NormBound(), None)])
def test_a_norm_bound_shortens_what_is_longer_and_nothing_else(part: NormBound, bound: float | None) -> None:
    vectors = drawn()
    x = vectors.astype(float)
    bound = float(np.median(np.linalg.norm(x, axis=1))) if bound is None else bound
    found = prepared(part, vectors)
    np.testing.assert_allclose(rows(found.points), clipped(x, bound), rtol=1e-9)
    assert found.figures["updates_shortened"] == np.count_nonzero(np.linalg.norm(x, axis=1) > bound * (1 + 1e-9))
    assert found.figures["norm_bound"] == pytest.approx(bound)


def test_one_huge_update_is_no_longer_than_others_under_a_norm_bound_and_counts_for_as_much() -> None:
    vectors = drawn()
    vectors[3] *= 1e6
    weights = np.arange(1.0, COUNT + 1)
    found = NormBound().prepare(points_of(vectors, weights), {}).points
    assert np.sqrt(found.squared_norms).max() <= np.median(np.linalg.norm(drawn(), axis=1)) * 3
    np.testing.assert_array_equal(found.weights, weights)


def test_adaptive_clipping_is_algorithm_1_without_noise() -> None:
    """Andrew et al. 2021: clip to C, then C ← C exp(-η (b - γ))."""
    part = AdaptiveClipping(3.0, 0.6, 0.3)
    slots, norm = part.init(), 3.0
    for seed in range(5):
        vectors = drawn(seed)
        x = vectors.astype(float)
        found = prepared(part, vectors, slots)
        np.testing.assert_allclose(rows(found.points), clipped(x, norm), rtol=1e-6)
        below = np.mean(np.linalg.norm(x, axis=1) <= norm)
        norm *= np.exp(-0.3 * (below - 0.6))
        slots = found.slots
        assert slots["clipping_norm"][0] == pytest.approx(norm, rel=1e-6)


def test_adaptive_clipping_finds_the_quantile_from_far_below() -> None:
    part, vectors = AdaptiveClipping(), drawn(2, 40)
    slots = part.init()
    for _ in range(120):
        slots = prepared(part, vectors, slots).slots
    below = np.mean(np.linalg.norm(vectors, axis=1) <= slots["clipping_norm"][0])
    assert part == AdaptiveClipping(0.1, 0.5, 0.2)
    assert 0.4 <= below <= 0.6


def test_adaptive_zeroing_leaves_out_what_is_absurd_with_the_constants_of_tensorflow_federated() -> None:
    vectors = drawn(1)
    vectors[2, 5] = 1e9
    vectors[4, 7] = -20.9  # 2 · 10 + 1
    vectors[6, 9] = 21.1
    found = prepared(AdaptiveZeroing(), vectors)
    kept = rows(found.points)
    assert not kept[[2, 6]].any()
    np.testing.assert_allclose(np.delete(kept, [2, 6], axis=0), np.delete(vectors, [2, 6], axis=0), rtol=1e-9)
    below = np.mean(np.abs(vectors).max(axis=1) <= 10)
    assert found.slots["zeroing_norm"][0] == pytest.approx(10 * 10 ** (0.98 - below), rel=1e-6)
    assert found.figures["updates_zeroed"] == 2


def test_mixing_puts_the_mean_of_the_nearest_in_the_place_of_each() -> None:
    """Allouah et al. 2023, Algorithm 2."""
    vectors = drawn(4)
    x = vectors.astype(float)
    expected = []
    for one in x:
        nearest = np.argsort([((one - other) ** 2).sum() for other in x], kind="stable")[: COUNT - 3]
        expected.append(x[nearest].mean(axis=0))
    np.testing.assert_allclose(rows(prepared(NearestNeighbourMixing(3), vectors).points), expected, rtol=1e-9)


def test_a_few_far_updates_are_nobodys_neighbours() -> None:
    vectors = drawn(4)
    vectors[:2] += 1000
    mixed = rows(prepared(NearestNeighbourMixing(2), vectors).points)
    assert np.abs(mixed[2:]).max() < 100


def test_mixing_of_too_few_fails_with_the_reason() -> None:
    assert NearestNeighbourMixing(2).fewest(1) == 5
    prepared(NearestNeighbourMixing(2), drawn(0, 5))
    with pytest.raises(FoldError, match="4 updates are too few for the rule to bear 2 bad ones"):
        prepared(NearestNeighbourMixing(2), drawn(0, 4))


@pytest.mark.parametrize(("count", "size"), [(12, 3), (11, 3), (11, 1), (11, 11), (11, 40)])
def test_buckets_hold_every_update_once_and_become_means(count: int, size: int) -> None:
    """Karimireddy et al. 2022, Algorithm 1."""
    vectors = np.eye(count, SIZE, dtype=np.float32)
    found = rows(prepared(Bucketing(size), vectors, seed=9).points)
    assert len(found) == -(-count // size)
    members = [np.flatnonzero(each) for each in found]
    assert sorted(np.concatenate(members)) == list(range(count))
    assert [each.size for each in members[:-1]] == [min(size, count)] * (len(members) - 1)
    for row, each in zip(found, members, strict=True):
        np.testing.assert_allclose(row[each], 1 / each.size)


def test_buckets_are_others_in_each_fold_and_the_same_whenever_it_is_made() -> None:
    vectors = drawn(5)
    first, again, other = (rows(prepared(Bucketing(2), vectors, seed=seed).points) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert not np.allclose(first, other)


def test_mixed_points_count_the_same_and_leave_what_they_are_made_of_as_it_was() -> None:
    points = points_of(drawn(6), np.arange(1.0, COUNT + 1))
    before = rows(points)
    for part in (NearestNeighbourMixing(2), Bucketing(2)):
        np.testing.assert_array_equal(part.prepare(points, {}).points.weights, 1)
    assert rows(points).tobytes() == before.tobytes()
