from __future__ import annotations

import numpy as np
import pytest

from edgefl.errors import RunError
from edgefl_server.aggregation import Contribution, Update, Updates, in_order, without_basis

SIZE = 11


def updates(count: int) -> list[Update]:
    random = np.random.default_rng(4)
    return [
        Update(f"t{index}", 1 + index, {"delta": random.normal(size=SIZE).astype(np.float32)}) for index in range(count)
    ]


def test_they_come_in_order_as_often_as_they_are_asked_for() -> None:
    given = updates(3)
    collection = Updates.of(given)
    assert list(collection) == given == list(collection)
    assert len(collection) == 3


@pytest.mark.parametrize("order", [(1, 0), (0, 0)])
def test_another_order_than_that_of_task_ids_is_refused(order: tuple[int, int]) -> None:
    given = updates(2)
    with pytest.raises(RunError, match="task-id order"):
        Updates.of([given[index] for index in order])


def test_a_schedule_may_order_them_by_acceptance() -> None:
    given = updates(2)
    contributions = [
        Contribution(each.task_id, each.num_examples, lambda each=each: each, accepted)
        for each, accepted in ((given[1], 1), (given[0], 2))
    ]
    assert [each.task_id for each in Updates(contributions)] == ["t1", "t0"]


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("elements", [1, 8, 1 << 20])
def test_blocks_are_the_columns_of_all_updates(monkeypatch, tmp_path, in_memory: bool, elements: int) -> None:
    if not in_memory:
        monkeypatch.setattr("edgefl_server.aggregation.updates._IN_MEMORY", 0)
    monkeypatch.setattr("edgefl_server.aggregation.updates._ELEMENTS", elements)
    given = updates(3)
    collection = Updates(Updates.of(given).contributions, tmp_path)
    whole = np.zeros((3, SIZE), np.float32)
    for part, block in collection.blocks("delta"):
        assert block.size <= max(elements, 3)
        whole[:, part] = block
        block[:] = np.nan  # it is the caller's
    np.testing.assert_array_equal(whole, [each.delta for each in given])
    assert list(tmp_path.iterdir()) == []


def test_a_section_that_nobody_sends_has_no_blocks() -> None:
    assert list(Updates.of(updates(2)).blocks("statistics")) == []
    assert list(Updates.of([]).blocks("delta")) == []


def test_a_change_is_made_to_each_update_when_it_is_read_and_after_those_before() -> None:
    first = Updates.of(updates(2)).changed(
        lambda each: Update(each.task_id, 10 * each.num_examples, each.sections, each.staleness)
    )
    second = first.changed(lambda each: Update(each.task_id, each.num_examples + 1, each.sections))
    assert [each.num_examples for each in second] == [11, 21]
    assert [each.num_examples for each in first] == [10, 20]


def test_contributions_are_put_into_the_order_of_acceptance_or_of_task_ids() -> None:
    given = [
        Contribution(task, 1, lambda: None, accepted) for task, accepted in (("b", 1), ("a", 2), ("c", 0), ("d", 0))
    ]
    assert [each.task_id for each in in_order(given)] == ["c", "d", "b", "a"]
    with pytest.raises(RunError, match="order of their acceptance, got b after a"):
        Updates([given[1], given[0]])


def test_what_goes_on_from_something_that_does_not_count_does_not_count_through_any_number_of_steps() -> None:
    bases = {"a": "", "d": "c", "c": "b", "b": "gone", "x": "counts"}
    assert without_basis(bases, {"gone"}) == {"b", "c", "d"}
    assert without_basis(bases, {"c"}) == {"d"}
    assert without_basis({}, {"gone"}) == set()
