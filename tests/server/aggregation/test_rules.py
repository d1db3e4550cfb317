"""Each rule equals a transcription of its paper in float64, and does what it is for."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from edgefl_server.aggregation import STRATEGIES, Cohort, FoldError, Update, Updates
from edgefl_server.aggregation.hyperparameters import SettingError, build
from edgefl_server.aggregation.points import Points
from edgefl_server.aggregation.rules import (
    RULES,
    Bulyan,
    CenteredClipping,
    FLTrust,
    GeometricMedian,
    Krum,
    Median,
    MultiKrum,
    Rule,
    TrimmedMean,
)
from edgefl_server.aggregation.strategies.fedavg import FedAvg

SIZE, COUNT, F = 301, 15, 3
HERE = Path(__file__).parent
BYZFL = HERE.parents[2] / ".venvs" / "byzfl" / "bin" / "python"


def drawn(seed: int = 0, count: int = COUNT, bad: int = F) -> np.ndarray:
    """Unlike honest vectors and a few far away, float32 ``[count, SIZE]``."""
    random = np.random.default_rng(seed)
    whole = random.normal(size=(count, SIZE)) * random.uniform(0.5, 2, (count, 1)) + random.normal(size=SIZE)
    whole[:bad] += 20 * random.normal(size=SIZE)
    return random.permutation(whole).astype(np.float32)


def updates_of(vectors: np.ndarray) -> Updates:
    return Updates.of([Update(f"t{i:03d}", 5 + i, {"delta": each}) for i, each in enumerate(vectors)])


def points_of(vectors: np.ndarray, seed: int = 0) -> Points:
    return Points(updates_of(vectors).columns("delta"), np.ones(len(vectors)), seed)


def made(rule: Rule, vectors: np.ndarray, slots: dict | None = None) -> np.ndarray:
    return rule.combine(points_of(vectors), rule.init(SIZE) if slots is None else slots)[0]


def median(x: np.ndarray) -> np.ndarray:
    return np.median(x, axis=0)


def trimmed_mean(x: np.ndarray, f: int = F) -> np.ndarray:
    return np.mean([sorted(column)[f : len(x) - f] for column in x.T], axis=1)


def krum_scores(x: np.ndarray, f: int) -> list[float]:
    """Blanchard et al. 2017, section 4: the n - f - 2 closest others of each."""
    found = []
    for i, one in enumerate(x):
        distances = sorted(float(((one - other) ** 2).sum()) for j, other in enumerate(x) if j != i)
        found.append(sum(distances[: max(1, len(x) - f - 2)]))
    return found


def krum(x: np.ndarray) -> np.ndarray:
    return x[int(np.argmin(krum_scores(x, F)))]


def multi_krum(x: np.ndarray, keep: int = COUNT - F) -> np.ndarray:
    return x[np.argsort(krum_scores(x, F))[:keep]].mean(axis=0)


def bulyan(x: np.ndarray, f: int = F) -> np.ndarray:
    """El Mhamdi et al. 2018, section 4."""
    left, chosen = list(x), []
    for _ in range(len(x) - 2 * f):
        best = int(np.argmin(krum_scores(np.array(left), f))) if len(left) > 1 else 0
        chosen.append(left.pop(best))
    theta = np.array(chosen)
    beta = len(theta) - 2 * f
    middle = np.median(theta, axis=0)
    nearest = np.argsort(np.abs(theta - middle), axis=0, kind="stable")[:beta]
    return np.take_along_axis(theta, nearest, axis=0).mean(axis=0)


def geometric_median(x: np.ndarray, nu: float = 0.1, times: int = 3) -> np.ndarray:
    """Pillutla et al. 2022, Algorithm 2."""
    z = np.zeros(SIZE)
    for _ in range(times):
        beta = 1 / np.maximum(nu, np.linalg.norm(x - z, axis=1))
        z = (beta[:, None] * x).sum(axis=0) / beta.sum()
    return z


def centered_clipping(x: np.ndarray, v: np.ndarray, tau: float, times: int) -> np.ndarray:
    """Karimireddy et al. 2021, Algorithm 2."""
    for _ in range(times):
        apart = x - v
        v = v + (apart * np.minimum(1, tau / np.linalg.norm(apart, axis=1))[:, None]).mean(axis=0)
    return v


def fltrust(x: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Cao et al. 2021, Algorithm 2, lines 9 to 13."""
    trust = [max(0.0, float(each @ g) / (np.linalg.norm(each) * np.linalg.norm(g))) for each in x]
    scaled = [score * np.linalg.norm(g) / np.linalg.norm(each) * each for score, each in zip(trust, x, strict=True)]
    return np.sum(scaled, axis=0) / np.sum(trust)


ROOT = (np.random.default_rng(1).normal(size=SIZE) + 0.5).astype(np.float32)

CASES: dict[str, tuple[Rule, Callable[[np.ndarray], np.ndarray]]] = {
    "median": (Median(), median),
    "trimmed-mean": (TrimmedMean(F), trimmed_mean),
    "krum": (Krum(F), krum),
    "multi-krum": (MultiKrum(F), multi_krum),
    "multi-krum of 4": (MultiKrum(F, 4), lambda x: multi_krum(x, 4)),
    "bulyan": (Bulyan(F), bulyan),
    "geometric-median": (GeometricMedian(), geometric_median),
    "geometric-median, long": (GeometricMedian(1e-3, 40), lambda x: geometric_median(x, 1e-3, 40)),
    "centered-clipping": (CenteredClipping(9.0, 3), lambda x: centered_clipping(x, np.zeros(SIZE), 9.0, 3)),
    "fltrust": (FLTrust("root").rooted(ROOT), lambda x: fltrust(x, ROOT.astype(float))),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(4))
def test_it_is_what_its_paper_says(name: str, seed: int) -> None:
    rule, oracle = CASES[name]
    vectors = drawn(seed)
    np.testing.assert_allclose(made(rule, vectors), oracle(vectors.astype(float)), rtol=1e-9, atol=1e-9)


def test_every_rule_is_among_those_that_are_compared() -> None:
    assert {*RULES.names()} - {type_of(each) for each, _ in CASES.values()} == {"mean"}


def type_of(rule: Rule) -> str:
    return next(name for name in RULES.names() if RULES.get(name) is type(rule))


def test_centered_clipping_goes_on_from_what_the_fold_before_made() -> None:
    rule, center = CenteredClipping(5.0, 2), np.zeros(SIZE)
    slots = rule.init(SIZE)
    for seed in range(3):
        vectors = drawn(seed)
        found, slots = rule.combine(points_of(vectors), slots)
        center = centered_clipping(vectors.astype(float), center, 5.0, 2)
        np.testing.assert_allclose(found, center, rtol=1e-5, atol=1e-6)
        center = center.astype(np.float32).astype(float)


def test_fltrust_trusts_those_who_point_where_the_root_update_does_however_long_others_are() -> None:
    rule = FLTrust("root").rooted(ROOT)
    honest = np.tile(ROOT, (2, 1))
    bad = np.tile(-100 * ROOT, (9, 1))  # nine of eleven
    np.testing.assert_allclose(made(rule, np.concatenate([honest, bad])), ROOT, rtol=1e-5)
    with pytest.raises(FoldError, match="nobody to trust"):
        made(rule, bad)
    across = np.roll(ROOT, 1) - ROOT * (np.roll(ROOT, 1) @ ROOT) / (ROOT @ ROOT)
    long = np.concatenate([1e6 * (across - 1e-3 * ROOT)[None], np.float32(1e-6) * honest]).astype(np.float32)
    np.testing.assert_allclose(made(FLTrust("root").rooted(np.float32(1e-6) * ROOT), long), 1e-6 * ROOT, rtol=1e-5)


def test_fltrust_does_nothing_without_an_update_by_which_it_could_judge() -> None:
    with pytest.raises(FoldError, match="the update of the root device is all zeros"):
        made(FLTrust("root").rooted(np.zeros(SIZE, np.float32)), drawn(5))
    with pytest.raises(FoldError, match="there is no update of the root device"):
        made(FLTrust("root"), drawn(5))
    with pytest.raises(SettingError, match="fltrust expects root_device"):
        FLTrust()


# What they are for.

BAD = {
    "far": lambda honest: honest.mean(axis=0) * -1e3,
    "sign flip": lambda honest: -honest.mean(axis=0),
    "nearly": lambda honest: honest.mean(axis=0) - 1.5 * honest.std(axis=0),
}


def attacked(kind: str, count: int = 15, bad: int = 3) -> tuple[np.ndarray, np.ndarray]:
    honest = np.random.default_rng(8).normal(size=(count - bad, SIZE)) + 1
    whole = np.concatenate([honest, np.tile(BAD[kind](honest), (bad, 1))])
    return honest, np.random.default_rng(9).permutation(whole).astype(np.float32)


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("name", [each for each in CASES if each not in ("krum", "centered-clipping")])
def test_bad_devices_do_not_decide_the_result_as_they_do_that_of_the_mean(name: str, kind: str) -> None:
    honest, whole = attacked(kind)
    direction = honest.mean(axis=0)
    found = made(CASES[name][0], whole)
    assert found @ direction > 0.5 * direction @ direction
    if kind == "far":
        assert whole.mean(axis=0) @ direction < 0


def test_centered_clipping_bounds_by_how_much_a_bad_device_moves_it() -> None:
    _, whole = attacked("far")
    rule = CenteredClipping(2.0)
    found, _ = rule.combine(points_of(whole), {"center": np.ones(SIZE, np.float32)})
    assert np.linalg.norm(found - 1) <= 2.0


def test_krum_takes_one_honest_update_and_so_is_worse_than_the_mean_without_attack() -> None:
    honest = (np.random.default_rng(8).normal(size=(15, SIZE)) + 1).astype(np.float32)
    found = made(Krum(3), honest)
    assert any(np.array_equal(found.astype(np.float32), each) for each in honest)
    assert np.linalg.norm(found - 1) > 3 * np.linalg.norm(honest.mean(axis=0) - 1)


def moved(settings: dict, vectors: np.ndarray) -> np.ndarray:
    strategy = build(STRATEGIES.get(settings.pop("strategy", "fedavg")), settings)
    state = strategy.init(np.zeros(SIZE, np.float32), SIZE)
    return strategy.apply(state, updates_of(vectors), Cohort(0, 5))[0].weights


@pytest.mark.parametrize("before", ["nnm", "bucketing"])
@pytest.mark.parametrize("rule", ["krum", "median"])
def test_mixing_brings_a_rule_nearer_to_the_mean_of_unlike_honest_devices(before: str, rule: str) -> None:
    """Allouah et al. 2023, Karimireddy et al. 2022: a rule that chooses among unlike ones leaves most out."""
    random = np.random.default_rng(2)
    kinds = random.permutation(12) % 4
    honest = 5 * np.abs(random.normal(size=(4, SIZE)))[kinds] + 0.2 * random.normal(size=(12, SIZE))
    apart = [
        np.linalg.norm(moved({"rule": rule, **mixed}, honest.astype(np.float32)) - honest.mean(axis=0))
        for mixed in ({}, {"pre_aggregation": before})
    ]
    assert apart[1] < 0.8 * apart[0]


@pytest.mark.parametrize("kind", BAD)
def test_the_default_against_bad_devices_goes_where_unlike_honest_ones_do(kind: str) -> None:
    random = np.random.default_rng(3)
    honest = 1 + random.normal(size=(12, SIZE)) * random.uniform(0.3, 3, (12, 1))
    whole = np.concatenate([honest, np.tile(BAD[kind](honest), (3, 1))]).astype(np.float32)
    found, direction = moved({"strategy": "robust"}, whole), honest.mean(axis=0)
    assert found @ direction > 0.5 * np.linalg.norm(found) * np.linalg.norm(direction)


# What holds for all of them.

ALL = [
    *RULES.names(),
    "norm-bound,nnm+trimmed-mean",
    "bucketing+krum",
    "norm-bound+fltrust",
    "adaptive-zeroing,adaptive-clipping+mean",
]


def composed(name: str) -> FedAvg:
    before, _, rule = name.rpartition("+")
    root = {"root_device": "root"} if rule == "fltrust" else {}
    found: FedAvg = build(FedAvg, {"pre_aggregation": before, "rule": rule, **root})
    return found


def cohort_of(strategy: FedAvg) -> Cohort:
    rooted = isinstance(strategy.rule, FLTrust)
    return Cohort(20, 77, Update("root", 9, {"delta": ROOT}) if rooted else None)


@pytest.mark.parametrize("name", ALL)
def test_the_order_of_arrival_does_not_change_one_bit(name: str) -> None:
    vectors, strategy = drawn(3), composed(name)
    results = set()
    for seed in range(3):
        arrived = np.random.default_rng(seed).permutation(COUNT)
        updates = [
            Update(f"t{i:03d}", 5 + i, {"delta": vectors[i], "statistics": vectors[i][:7]}, steps=1 + i)
            for i in arrived
        ]
        ordered = Updates.of(sorted(updates, key=lambda each: each.task_id))
        state = strategy.init(np.zeros(SIZE + 7, np.float32), SIZE)
        for _ in range(2):
            state, figures = strategy.apply(state, ordered, cohort_of(strategy))
        slots = b"".join(state.slots[each].tobytes() for each in sorted(state.slots))
        results.add((state.weights.tobytes(), slots, tuple(sorted(figures.items()))))
    assert len(results) == 1


@pytest.mark.parametrize("name", ALL)
def test_blocks_and_temporary_files_do_not_change_what_is_made(monkeypatch, tmp_path, name: str) -> None:
    vectors, strategy = drawn(4), composed(name)
    state = strategy.init(np.zeros(SIZE, np.float32), SIZE)
    whole = strategy.apply(state, updates_of(vectors), cohort_of(strategy))[0].weights
    monkeypatch.setattr("edgefl_server.aggregation.updates._IN_MEMORY", 0)
    monkeypatch.setattr("edgefl_server.aggregation.updates._ELEMENTS", 16 * (COUNT + 1))
    monkeypatch.setattr("edgefl_server.aggregation.points._AT_ONCE", 7 * (COUNT + 1))
    updates = Updates(updates_of(vectors).contributions, tmp_path)
    assert np.allclose(strategy.apply(state, updates, cohort_of(strategy))[0].weights, whole, rtol=1e-5, atol=1e-6)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["krum", "multi-krum", "bulyan", "trimmed-mean"])
def test_a_fold_of_too_few_updates_fails_with_the_reason_and_what_a_rule_bears_depends_on_their_number(name) -> None:
    fewest = {"krum": 5, "multi-krum": 5, "bulyan": 7, "trimmed-mean": 3}[name]
    rule = build(RULES.get(name), {"byzantine": 1})
    assert rule.fewest == fewest
    made(rule, drawn(0, fewest, 0))
    with pytest.raises(FoldError, match=f"{fewest - 1} updates are too few for the rule to bear 1 bad ones"):
        made(rule, drawn(0, fewest - 1, 0))
    least = {"krum": 3, "multi-krum": 3, "bulyan": 3, "trimmed-mean": 1}[name]
    made(RULES.get(name)(), drawn(0, least, 0))


def test_distances_of_vectors_that_are_alike_keep_their_digits() -> None:
    base = np.full(SIZE, 1e3, np.float32)
    vectors = np.array([base, base + np.float32(1e-3), base - np.float32(2e-3)])
    x = vectors.astype(float)
    exact = [[((one - other) ** 2).sum() for other in x] for one in x]
    points = points_of(vectors)
    np.testing.assert_allclose(points.distances, exact, rtol=1e-9)
    np.testing.assert_allclose(points.squared_norms, (x**2).sum(axis=1), rtol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_of_two_that_are_each_others_nearest_the_first_is_taken_also_once_all_are_scaled(seed: int) -> None:
    """Bulyan's last choices are between such two, and rounding must not make them."""
    vectors = drawn(seed, 13, 2)[:, :8]
    points = points_of(vectors).scaled(3.0 / np.linalg.norm(vectors.astype(float), axis=1))
    assert np.array_equal(points.distances, points.distances.T)
    whole = np.concatenate([rows for _, rows in points.blocks()], axis=1)
    np.testing.assert_allclose(Bulyan(2).combine(points, {})[0], bulyan(whole, 2), rtol=1e-9)


HONEST = 1 + 0.3 * np.random.default_rng(0).normal(size=(10, SIZE))


@pytest.mark.parametrize(
    ("before", "rule"),
    [
        ("", "krum"),
        ("norm-bound", "krum"),
        ("norm-bound,nnm", "trimmed-mean"),
        ("nnm", "multi-krum"),
        ("norm-bound", "bulyan"),
        ("", "geometric-median"),
        ("", "centered-clipping"),
    ],
)
def test_what_a_huge_update_does_does_not_depend_on_how_huge_it_is(before: str, rule: str) -> None:
    """Distances of what was shortened were the rounding errors of squares, by which a bad device was the nearest."""
    honest, results = HONEST.astype(np.float32), []
    against = -HONEST.mean(axis=0) / np.linalg.norm(HONEST.mean(axis=0))
    for exponent in (9, 20, 29, 36):
        bad = np.tile(against * 10.0**exponent, (2, 1)).astype(np.float32)
        results.append(moved({"rule": rule, "pre_aggregation": before}, np.concatenate([honest, bad])))
        assert rule == "centered-clipping" or results[-1] @ HONEST.mean(axis=0) > 0
        np.testing.assert_allclose(results[-1], results[0], rtol=1e-5, atol=1e-6)


def test_points_are_combinations_however_they_are_made() -> None:
    vectors = drawn(6)
    x, random = vectors.astype(float), np.random.default_rng(1)
    matrix, factors = random.normal(size=(6, COUNT)), random.uniform(0, 2, 6)
    extra = random.normal(size=SIZE).astype(np.float32)
    points = points_of(vectors).mixed(matrix).scaled(factors).extended(extra).chosen([1, 4, 6])
    exact = np.concatenate([(matrix @ x) * factors[:, None], extra[None].astype(float)])[[1, 4, 6]]
    found = np.empty((3, SIZE))
    for part, rows in points.blocks():
        found[:, part] = rows
    np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(points.combined(np.array([1.0, -2, 3])), np.array([1.0, -2, 3]) @ exact, atol=1e-9)
    np.testing.assert_allclose(points.squared_norms, (exact**2).sum(axis=1), rtol=1e-8)
    distances = ((exact[:, None] - exact[None]) ** 2).sum(axis=-1)
    np.testing.assert_allclose(points.distances, distances, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(points.largest(), np.abs(exact).max(axis=1), rtol=1e-9)


def test_statistics_have_a_robust_rule_of_their_own_under_a_robust_rule() -> None:
    honest, bad = [0.2, 0.25, 0.3, 0.35], [90.0]
    updates = Updates.of(
        [
            Update(f"t{i}", 10, {"delta": np.zeros(2, np.float32), "statistics": np.array([each], np.float32)})
            for i, each in enumerate([*honest, *bad])
        ]
    )
    for rule, low, high in (("mean", 18, 19), ("median", 0.2, 0.35), ("krum", 0.2, 0.35)):
        strategy = build(FedAvg, {"rule": rule})
        state = strategy.init(np.zeros(3, np.float32), 2)
        assert low <= strategy.apply(state, updates, Cohort())[0].weights[2] <= high


@pytest.mark.skipif(not BYZFL.exists(), reason="`make bench-peers` makes .venvs/byzfl")
@pytest.mark.parametrize("seed", range(3))
def test_byzfl_makes_the_same_of_the_same_vectors(tmp_path, seed: int) -> None:
    vectors = drawn(seed).astype(float)
    np.savez(tmp_path / "in.npz", vectors=vectors, f=F, radius=9.0, bound=12.0)
    oracle = [BYZFL, HERE / "byzfl_oracle.py", tmp_path / "in.npz", tmp_path / "out.npz"]
    subprocess.run(oracle, check=True, env={}, timeout=120)
    theirs = np.load(tmp_path / "out.npz")
    parts = {
        "multi-krum": {"keep": COUNT - F - 1},
        "centered-clipping": {"radius": 9.0, "iterations": 3},
        "nnm": {"rule": "mean"},
        "norm-bound": {"rule": "mean", "bound": 12.0},
    }
    assert len(theirs.files) == 10
    for name in theirs.files:
        before, _, rule = name.rpartition(", ")
        if name in ("nnm", "norm-bound"):
            before, rule = name, "mean"
        given = {"pre_aggregation": before, "rule": rule, **parts.get(name, {}), "weighting": "uniform"}
        if rule in ("trimmed-mean", "krum", "multi-krum") or "nnm" in before:
            given["byzantine"] = F
        strategy = build(FedAvg, given)
        state = strategy.init(np.zeros(SIZE, np.float32), SIZE)
        found = strategy.apply(state, updates_of(vectors.astype(np.float32)), Cohort())[0].weights
        np.testing.assert_allclose(found, theirs[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_ties_go_to_the_first_of_the_fold() -> None:
    vectors = np.repeat(drawn(1, 3, 0), 3, axis=0)
    scores = [made(Krum(1), vectors) for _ in range(2)]
    assert all(np.array_equal(one, other) for one, other in pairwise(scores))
