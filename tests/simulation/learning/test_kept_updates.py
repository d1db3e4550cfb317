"""Updates that wait in a file for the end of a round."""

from __future__ import annotations

import numpy as np

from edgefl.wire.messages import MetricState
from edgefl_server.aggregation import Update
from edgefl_simulation.learning.kept_updates import KeptUpdates


def update(number):
    random = np.random.default_rng(number)
    sections = {"delta": random.normal(size=5).astype(np.float32), "statistics": np.empty(0, np.float32)}
    return Update(f"task-{number}", number + 1, sections, metrics=(MetricState("rows", (1.0,)),))


def test_what_was_kept_is_read_as_often_as_it_is_asked_for_in_any_order():
    updates = [update(number) for number in range(4)]
    with KeptUpdates() as kept:
        for each in updates:
            kept.add(each)
        assert len(kept) == 4
        for number in (3, 0, 3, 1):
            found, wanted = kept.contributions[number].read(), updates[number]
            assert (found.task_id, found.num_examples, found.metrics) == (
                wanted.task_id,
                wanted.num_examples,
                wanted.metrics,
            )
            assert found.sections.keys() == wanted.sections.keys()
            assert all(np.array_equal(found.section(name), wanted.section(name)) for name in wanted.sections)
