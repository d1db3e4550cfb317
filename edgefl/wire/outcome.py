"""The Outcome: a device's answer to a task (messages.fbs, docs/protocol.md)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgefl.wire.framing import Budget, Reading, counted, finish, new_builder, open_enum, text, vector_of_tables
from edgefl.wire.generated import messages_generated as wire
from edgefl.wire.sections import Section, read_section, write_section
from edgefl.wire.vocabulary import OutcomeStatus, Reason
from edgefl.wire.words import check_hash, check_name, printable

__all__ = ["MetricState", "Outcome"]


@dataclass(frozen=True)
class MetricState:
    """An additive state of a metric, in the order of its elements."""

    name: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Outcome:
    """A device's answer to a task.

    Attributes:
        task_id: the task's.
        status: how it ended; an unknown number is kept as an int.
        reason: why it is not ``DONE``.
        base_weights_hash: the weights that it started from.
        layout_hash: the layout of its vectors.
        num_examples: rows of local data, at most steps × batch size where a limit ended training; the weight in FedAvg.
        local_steps: optimizer steps made.
        sections: the vectors.
        metrics: additive states, summed over the rows.
        trainer: product and version of what computed it.
    """

    task_id: str
    base_weights_hash: str
    layout_hash: str
    status: OutcomeStatus | int = OutcomeStatus.DONE
    reason: Reason | int = Reason.NONE
    num_examples: int = 0
    local_steps: int = 0
    sections: tuple[Section, ...] = ()
    metrics: tuple[MetricState, ...] = field(default=())
    trainer: str = ""

    def section(self, name: str) -> Section | None:
        """The section of that name, if there is one."""
        return next((section for section in self.sections if section.name == name), None)

    def encode(self) -> bytes:
        """The message as bytes."""
        builder = new_builder(sum(len(section.payload) for section in self.sections) + 1024)
        sections = [write_section(builder, section) for section in self.sections]
        metrics = []
        for metric in self.metrics:
            values_at = builder.CreateNumpyVector(np.asarray(metric.values, np.float64))
            name_at = builder.CreateString(metric.name)
            wire.MetricStateStart(builder)
            wire.MetricStateAddName(builder, name_at)
            wire.MetricStateAddValues(builder, values_at)
            metrics.append(wire.MetricStateEnd(builder))
        sections_at = vector_of_tables(builder, wire.OutcomeStartSectionsVector, sections)
        metrics_at = vector_of_tables(builder, wire.OutcomeStartMetricsVector, metrics)
        task_at = builder.CreateString(self.task_id)
        base_at = builder.CreateString(self.base_weights_hash)
        layout_at = builder.CreateString(self.layout_hash)
        trainer_at = builder.CreateString(self.trainer)
        wire.OutcomeStart(builder)
        wire.OutcomeAddTaskId(builder, task_at)
        wire.OutcomeAddStatus(builder, int(self.status))
        wire.OutcomeAddReason(builder, int(self.reason))
        wire.OutcomeAddBaseWeightsHash(builder, base_at)
        wire.OutcomeAddLayoutHash(builder, layout_at)
        wire.OutcomeAddNumExamples(builder, self.num_examples)
        wire.OutcomeAddLocalSteps(builder, self.local_steps)
        wire.OutcomeAddSections(builder, sections_at)
        wire.OutcomeAddMetrics(builder, metrics_at)
        wire.OutcomeAddTrainer(builder, trainer_at)
        return finish(builder, wire.OutcomeEnd(builder), wire.Body.Outcome)

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Outcome:
        """Reads a message; payloads are views into ``data``, nothing is copied.

        Raises:
            MessageError: the bytes are not an Outcome.
            FormatVersionError: it is of another protocol version.
        """
        with Reading("Outcome") as reading:
            table = reading.body(data, wire.Body.Outcome, wire.Outcome)
            budget = Budget(data)
            return cls(
                task_id=check_name(text(table.TaskId()), "task_id"),
                status=open_enum(OutcomeStatus, table.Status()),
                reason=open_enum(Reason, table.Reason()),
                base_weights_hash=check_hash(text(table.BaseWeightsHash()), "base_weights_hash"),
                layout_hash=check_hash(text(table.LayoutHash()), "layout_hash"),
                num_examples=table.NumExamples(),
                local_steps=table.LocalSteps(),
                sections=tuple(
                    read_section(entry, data, budget)
                    for entry in map(table.Sections, counted(table.SectionsLength(), data))
                ),
                metrics=tuple(
                    MetricState(printable(budget.text(entry.Name()), "a metric"), _values(entry, data, budget))
                    for entry in map(table.Metrics, counted(table.MetricsLength(), data))
                ),
                trainer=printable(text(table.Trainer()), "trainer"),
            )


def _values(entry: Any, data: bytes | memoryview, budget: Budget) -> tuple[float, ...]:
    counted(entry.ValuesLength(), data)
    budget.spend(8 * entry.ValuesLength())
    values = entry.ValuesAsNumpy()
    return tuple(float(value) for value in values) if isinstance(values, np.ndarray) else ()
