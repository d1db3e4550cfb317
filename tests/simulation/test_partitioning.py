"""Which rows fall on which device: every row once, deterministic by seed, and errors that say what to do."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.errors import DataError, EdgeflError, InvalidSettingError
from edgefl_simulation.partitioning import PARTITIONERS, Distribution, IdToSizeFnc, Rows, partition

LABELS = np.random.default_rng(1).integers(0, 10, 600)
OWNERS = np.array([f"person-{number % 12:02d}" for number in range(600)])
ROWS = Rows(600, LABELS, OWNERS)
SPECS = [
    "iid",
    "linear",
    "square",
    "dirichlet:0.5",
    "dirichlet:0.1,2",
    "inner-dirichlet:0.5",
    "pathological:2",
    "shard",
    "shard:3",
    "continuous:0.5",
    "distribution:2,1,3",
    "natural-id",
]


def cut(text, devices=12, seed=3, rows=ROWS):
    return partition(rows, text, devices, seed)


@pytest.mark.parametrize("text", [*SPECS, "grouped-natural-id:1"])
def test_every_row_lies_on_one_device_and_each_device_has_some_in_ascending_order(text):
    names, parts = cut(text)
    assert len(names) == len(parts) == 12
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(600))
    assert all((np.diff(part) > 0).all() for part in parts)


@pytest.mark.parametrize("text", SPECS[:-1])
def test_a_partition_follows_from_its_seed(text):
    first, again, other = cut(text)[1], cut(text)[1], cut(text, seed=4)[1]
    assert all(map(np.array_equal, first, again))
    assert not all(map(np.array_equal, first, other))


def test_partitions_do_not_change_from_one_version_of_numpy_to_another():
    # Dirichlet's numbers come from numpy's Generator, whose stream is not promised: this would notice.
    parts = {text: [int(part.sum()) for part in cut(text, 4)[1]] for text in SPECS[:-1]}
    assert parts == GOLDEN


GOLDEN = {
    "iid": [42535, 45871, 43983, 47311],
    "linear": [17019, 34113, 53494, 75074],
    "square": [5422, 23740, 52763, 97775],
    "dirichlet:0.5": [34182, 58177, 65408, 21933],
    "dirichlet:0.1,2": [27295, 56172, 40181, 56052],
    "inner-dirichlet:0.5": [46110, 41397, 42340, 49853],
    "pathological:2": [32049, 34247, 24270, 38095],
    "shard": [45186, 47381, 42611, 44522],
    "shard:3": [45852, 43772, 44390, 45686],
    "continuous:0.5": [45085, 44545, 44864, 45206],
    "distribution:2,1,3": [24987, 20657, 23344, 21195],
}


def test_a_pathological_device_has_so_many_classes_and_no_class_lies_nowhere():
    _, parts = cut("pathological:2", 20)
    assert {len(set(LABELS[part])) for part in parts} == {2}
    assert {*LABELS[np.concatenate(parts)]} == set(range(10))


def test_a_device_of_two_shards_has_few_classes():
    _, parts = cut("shard", 30)
    assert {len(part) for part in parts} == {20}
    assert max(len(set(LABELS[part])) for part in parts) <= 4


def test_a_small_alpha_makes_devices_less_alike():
    def skew(alpha):
        _, parts = cut(f"inner-dirichlet:{alpha}", 12)
        return np.mean([np.bincount(LABELS[part], minlength=10).max() / len(part) for part in parts])

    assert skew(0.05) > skew(1) > skew(100)
    assert skew(100) < 0.25


def test_strictness_says_how_far_a_quantity_is_sorted():
    quantities = np.random.default_rng(2).normal(size=600)

    def spread(strictness):
        _, parts = partition(Rows(600, quantities), f"continuous:{strictness}", 10, 1)
        return np.mean([quantities[part].std() for part in parts])

    assert spread(1) < spread(0.5) < spread(0)


def test_sizes_grow_as_they_are_said():
    assert [len(part) for part in cut("size:10,20,30", 0)[1]] == [10, 20, 30]
    assert [len(part) for part in cut("linear", 3)[1]] == [100, 200, 300]
    assert [len(part) for part in cut("square", 3)[1]] == [43, 171, 386]
    sizes = [len(part) for part in cut("exponential", 4)[1]]
    assert sum(sizes) == 600
    assert sizes[3] / sizes[2] == pytest.approx(np.e, rel=0.02)


def test_a_natural_device_is_called_like_its_owner_and_holds_just_his_rows():
    names, parts = cut("natural-id", 0)
    assert names == [f"person-{number:02d}" for number in range(12)]
    assert all(set(OWNERS[part]) == {name} for name, part in zip(names, parts, strict=True))
    fewer, parts = cut("natural-id", 5)
    assert fewer == [f"device-{number:06d}" for number in range(5)]
    assert all(len(set(OWNERS[part])) == 1 for part in parts)


def test_so_many_owners_share_a_device():
    _, parts = cut("grouped-natural-id:5", 0)
    assert sorted(len(set(OWNERS[part])) for part in parts) == [2, 5, 5]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(600))


@pytest.mark.parametrize(
    ("text", "devices", "message"),
    [
        ("dirichle:0.5", 3, "Did you mean dirichlet"),
        ("dirichlet", 3, "expects dirichlet:ALPHA[,LEAST], got 'dirichlet'"),
        ("dirichlet:much", 3, "expects dirichlet:ALPHA"),
        ("dirichlet:0.5,10,3", 3, "expects dirichlet:ALPHA[,LEAST]"),
        ("dirichlet:0", 3, "alpha above 0"),
        ("dirichlet:0.5", 100, "100 devices have 600 together"),
        ("dirichlet:0.001", 50, "none gave each of 50 devices 10 rows"),
        ("iid:3", 3, "expects iid alone"),
        ("iid", 0, "how many devices"),
        ("iid", 601, "leaves 1 of 601 devices with no rows; the first is number 600"),
        ("exponential", 50, "with no rows"),
        ("size:10,20", 3, "names 2 devices, and there are 3. Leave devices out, or name as many sizes."),
        ("size:10,700", 2, "add up to 710 rows, and there are 600"),
        ("shard:two", 1, "expects shard[:SHARDS]"),
        ("distribution", 1, "expects distribution:CLASSES[,SIGMA,LEAST]"),
        ("size:ten", 1, "expects size:SIZES"),
        ("size:0,5", 2, "leaves 1 of 2 devices with no rows; the first is number 0"),
        ("pathological:11", 3, "1 to 10 classes"),
        ("shard:300", 3, "1 to 600 shards"),
        ("continuous:2", 3, "0 to 1"),
        ("natural-id", 13, "13 devices, and the data has 12 owners"),
        ("grouped-natural-id:5", 7, "make 3 devices, got 7"),
        ("grouped-natural-id:50", 0, "1 to 12 owners"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(text, devices, message):
    with pytest.raises(InvalidSettingError) as caught:
        cut(text, devices)
    assert message in str(caught.value)


@pytest.mark.parametrize(("alpha", "devices", "possible"), [(0.5, 100, True), (0.7, 20, True), (0.001, 50, False)])
def test_a_dirichlet_partition_proposes_only_what_is_then_taken(alpha, devices, possible):
    with pytest.raises(InvalidSettingError) as caught:
        cut(f"dirichlet:{alpha},25", devices)
    found = re.search(rf"dirichlet:{alpha},(\d+)\.$", str(caught.value.hint))
    assert bool(found) == possible
    if found:
        assert min(map(len, cut(f"dirichlet:{alpha},{found[1]}", devices)[1])) == int(found[1])


def test_a_partition_that_needs_classes_or_owners_says_that_there_are_none():
    with pytest.raises(DataError, match="needs a class for each row"):
        cut("shard", rows=Rows(600))
    with pytest.raises(DataError, match=r"needs to know whose each row is.*\(owner, --owner\)"):
        cut("natural-id", rows=Rows(600))


@given(
    text=st.sampled_from([*SPECS[:-1], "exponential"]),
    devices=st.integers(1, 40),
    count=st.integers(1, 200),
    classes=st.integers(1, 5),
    seed=st.integers(0, 2**40),
)
def test_a_partition_either_gives_each_row_to_one_device_or_is_refused(text, devices, count, classes, seed):
    rows = Rows(count, np.arange(count) * 7 % classes)
    try:
        _, parts = partition(rows, text, devices, seed)
    except EdgeflError:
        return
    held = np.concatenate(parts)
    assert len(parts) == devices
    assert len(held) == len(set(held.tolist())) == count or text.startswith(("pathological", "distribution"))
    assert min(map(len, parts)) > 0


def test_flwr_datasets_names_are_all_there_but_for_those_that_cut_columns_or_take_functions():
    assert {
        *("iid", "dirichlet", "inner-dirichlet", "pathological", "shard", "size", "linear", "square", "exponential"),
        *("natural-id", "grouped-natural-id", "continuous", "distribution"),
    } <= set(PARTITIONERS.names())


def test_device_k_has_class_k_and_the_next_ones_in_given_shares():
    shares = np.random.default_rng(3).integers(1, 9, (10, 4))
    parts = partition(ROWS, Distribution(2, shares=shares, least=2), 20, 1)[1]
    counts = np.array([np.bincount(LABELS[part], minlength=10) for part in parts])
    for device, own in enumerate(counts):
        assert set(np.flatnonzero(own)) == {device % 10, (device + 1) % 10}
    for kind, of_class in enumerate(counts.T):
        got = of_class[of_class > 0] - 2
        exact = got.sum() * shares[kind] / shares[kind].sum()
        assert np.abs(got - exact).max() < 1


def test_sizes_may_follow_from_a_function_of_the_devices_number():
    def steps(numbers):
        return (numbers + 1) // 2

    given = IdToSizeFnc(steps)
    assert [len(part) for part in partition(ROWS, given, 5, 1)[1]] == [67, 67, 133, 133, 200]
    assert str(given) == f"IdToSizeFnc({__name__}.{steps.__qualname__})", "the same in every process"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (IdToSizeFnc(lambda numbers: numbers[:2]), "expects 3 finite shares"),
        (IdToSizeFnc(lambda numbers: numbers - 2), "finite shares of at least 0"),
        (IdToSizeFnc(lambda numbers: numbers - 1), "leaves 1 of 3 devices with no rows"),
        (Distribution(2, shares=np.ones((3, 1))), "expects shares for 10 classes"),
        (Distribution(2, shares=np.ones((10, 7))), "of class number 0 for 1 devices, got 10 rows and 7 shares"),
        (Distribution(11), "1 to 10 classes"),
        (Distribution(1, sigma=-1), "at least 0"),
        (Distribution(2, least=90), r"Take fewer devices, or distribution:2,2,\d+"),
    ],
)
def test_shares_that_are_none_are_refused(given, message):
    with pytest.raises(InvalidSettingError, match=message):
        partition(ROWS, given, 3, 1)
