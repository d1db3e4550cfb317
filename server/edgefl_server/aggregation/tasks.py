"""The task for a device: what it is to do, from what, by when. Plain values in, a message out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgefl.algorithms import SUMMARY
from edgefl.wire.messages import MOST_OUTSTANDING, Correction, ExtraVector, SectionCodec, Task, Weighting
from edgefl_server.aggregation.schedules import Assignment
from edgefl_server.aggregation.seeds import codec_seed, task_seed
from edgefl_server.aggregation.settings import RunSettings
from edgefl_server.aggregation.strategies.base import Demand
from edgefl_server.aggregation.update_codecs import section_codec

__all__ = ["Blob", "TaskSource", "codecs_of", "named_vectors", "run_of_task", "task_for", "task_id_of"]


@dataclass(frozen=True)
class Blob:
    """Something that devices fetch.

    Attributes:
        sha256: of its content.
        bytes: how many it has.
    """

    sha256: str
    bytes: int


@dataclass(frozen=True)
class TaskSource:
    """The part that all tasks of a cohort that start from one version have in common.

    Attributes:
        population: whose devices train.
        run: the run's id.
        version: the number of the version of the weights that they start from.
        cohort: the number of the cohort.
        fold: the number of the fold in which their outcomes are to be merged.
        model: the model file.
        graph_hash: of its graph.
        layout_hash: of its parameters.
        base: the weights of the version.
        vectors: what else is to be fetched, by the names that `named_vectors` gives.
        asked_by: the id of the run that asks, where that evaluates another one; empty: `run`.
    """

    population: str
    run: str
    version: int
    cohort: int
    fold: int
    model: Blob
    graph_hash: str
    layout_hash: str
    base: Blob
    vectors: tuple[ExtraVector, ...] = ()
    asked_by: str = ""


def task_id_of(run: str, cohort: int, assignment: Assignment) -> str:
    """Task ids sort by device inside a cohort, which fixes the order of folding for given devices."""
    return f"{run}-{cohort:06d}-{assignment.device}-{assignment.attempt:03d}"


def run_of_task(task_id: str) -> str:
    """The run of a task, by its id."""
    return task_id.rsplit("-", 3)[0]


def named_vectors(demand: Demand, slots: Mapping[str, str]) -> dict[str, str]:
    """The strategy's slots that tasks name, and that their devices may fetch, with their hashes."""
    return {name: slots[name] for name in demand.vectors} if slots else {}


def codecs_of(settings: RunSettings, demand: Demand, cohort: int, assignment: Assignment) -> tuple[SectionCodec, ...]:
    """Says how a task's outcome is to be written, section by section: what the run's codec does not suit, as float32.

    Args:
        settings: the run's.
        demand: what the strategy asks.
        cohort: the number of the task's cohort.
        assignment: the device's.
    """
    seed = task_seed(settings.effective_seed, cohort, assignment.device, assignment.turn)
    return tuple(
        SectionCodec(section, section_codec(settings.codec, section), codec_seed(seed, section))
        for section in demand.sections
        if section != SUMMARY  # which no codec writes
    )


def task_for(
    source: TaskSource,
    settings: RunSettings,
    demand: Demand,
    assignment: Assignment,
    seconds_left: float,
    continues: str = "",
    outstanding: Sequence[str] = (),
) -> Task:
    """The message that hands out a task, as it is once it was sent: whoever does it without a wire has the same bits.

    Args:
        source: what it starts from.
        settings: the run's.
        demand: what the strategy asks.
        assignment: the device's.
        seconds_left: how long it may still take.
        continues: the device's latest task of the run that is accepted; empty: none is.
        outstanding: its earlier ones that are not part of the weights yet, and the latest that is, newest first.
    """
    seed = task_seed(settings.effective_seed, source.cohort, assignment.device, assignment.turn)
    rate = settings.learning_rate_from(source.version)
    return Task(
        population=source.population,
        run=source.run,
        version=source.version,
        cohort=source.cohort,
        fold=source.fold,
        schedule=settings.schedule,
        minimum_cohort=settings.effective_minimum,
        # As in the papers of the algorithms with a correction, whose sums go over devices.
        weighting=Weighting.EXAMPLES if demand.correction is Correction.NONE else Weighting.UNIFORM,
        task_id=task_id_of(source.asked_by or source.run, source.cohort, assignment),
        model_hash=source.model.sha256,
        graph_hash=source.graph_hash,
        layout_hash=source.layout_hash,
        base_weights_hash=source.base.sha256,
        seed=seed,
        epochs=settings.epochs_of(source.version),
        max_steps=settings.max_steps,
        batch_size=settings.batch_size,
        learning_rate=None if rate is None else _sent(rate),
        kind=demand.kind,
        mu=_sent(demand.mu),
        correction=demand.correction,
        extra_vectors=source.vectors,
        continues=continues,
        clip_norm=_sent(settings.clip_norm),
        codecs=codecs_of(settings, demand, source.cohort, assignment),
        # At least a second: 0 would say that there is no deadline.
        deadline_seconds=_sent(max(1.0, seconds_left)),
        model_bytes=source.model.bytes,
        base_weights_bytes=source.base.bytes,
        outstanding=_at_most(outstanding),
        local_test=_sent(settings.local_test),
    )


def _sent(value: float) -> float:
    """A number as a device reads it, in the message's float32."""
    return float(np.float32(value))


def _at_most(outstanding: Sequence[str]) -> tuple[str, ...]:
    """The newest, and the last, which is the only one that is sure to count."""
    if len(outstanding) <= MOST_OUTSTANDING:
        return tuple(outstanding)
    return (*outstanding[: MOST_OUTSTANDING - 1], outstanding[-1])
