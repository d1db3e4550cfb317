"""A piece of work for one device (messages.fbs, docs/protocol.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgefl.wire.framing import Budget, Reading, counted, finish, new_builder, open_enum, text, vector_of_tables
from edgefl.wire.generated import messages_generated as wire
from edgefl.wire.sections import Section, read_section, write_section
from edgefl.wire.vocabulary import BatchPolicy, Correction, OptimizerState, TaskKind, Weighting
from edgefl.wire.words import check_codec, check_hash, check_name

__all__ = ["MOST_OUTSTANDING", "ExtraVector", "SectionCodec", "Task"]

MOST_OUTSTANDING = 8
"""The most earlier tasks of a run of which a device is asked to keep what it had at their end."""


class ExtraVector(NamedTuple):
    """A vector that a task names by its content.

    Attributes:
        name: what it is for.
        sha256: of the flat vector as little-endian float32.
        bytes: what its download measures; 0: not said.
    """

    name: str
    sha256: str
    bytes: int = 0


class SectionCodec(NamedTuple):
    """The codec with which a section of the outcome is to be written.

    Attributes:
        section: its name.
        codec: the codec's name.
        seed: of whatever the codec draws.
    """

    section: str
    codec: str
    seed: int = 0


@dataclass(frozen=True)
class Task:
    """A piece of work for one device.

    Attributes:
        population: whose devices do it.
        run: the training job it belongs to.
        task_id: unique; outcomes are idempotent by it.
        model_hash: SHA-256 of the model file.
        graph_hash: see `ModelManifest`.
        layout_hash: see `ParameterLayout.hash`.
        base_weights_hash: SHA-256 of the weights to start from.
        kind: an unknown number is kept as an int: the device declines it.
        schedule: how tasks and folds of the run follow each other. A device does a task of a schedule that it does not
            know: what it has to do differently is said by other fields.
        version: which weights of the run it starts from; 0: the initial ones.
        cohort: who is asked together, counted from 1.
        fold: what is merged together, counted from 1; 0: not decided yet.
        session: what the tasks of one protocol of several messages share; empty: it is a protocol of one,
            and no device of this version does another.
        minimum_cohort: the fold has at least so many outcomes, or there is none; 0: not said.
        weighting: what this device counts for in the weight section of the fold.
        model_bytes: what the download of the model file measures; 0: not said.
        base_weights_bytes: what that of the weights measures; 0: not said.
        extra_vectors: further vectors the task needs.
        payloads: further content for this device alone; none in any protocol of this version.
        continues: task id of this device's latest outcome of the run that was accepted, and was not discarded; empty:
            there is none. What the device keeps of a run (local parameters, its control variate) is what it was after
            that task. None: a server that does not say.
        outstanding: earlier such tasks, which a later task may still name: the latest that is folded, and those that
            are accepted and not folded yet.
        seed: every random choice on the device derives from it.
        epochs: passes over the local data.
        max_steps: at most so many batches; 0: no limit.
        max_seconds: at most so long; 0: no limit.
        batch_policy: what to do with left-over rows.
        batch_size: rows per step, at most the model's; 0: the model's.
        learning_rate: None: the model's own.
        optimizer_state: reset or keep slots.
        correction: what is added to the gradient in every local step.
        mu: FedProx's proximal term (Li et al. 2020, section 3.2), FedDyn's alpha; 0: absent.
        clip_norm: bound of the L2 norm of the delta's weight section; 0: none.
        codecs: how the outcome's sections are to be written; those that are not named: as float32.
        deadline_seconds: how long the server waits, from receipt; 0: for ever.
        local_test: the share of the local examples that training leaves alone, and on which the received weights are
            evaluated before it and the trained ones after it; 0: none.
    """

    population: str
    run: str
    task_id: str
    model_hash: str
    graph_hash: str
    layout_hash: str
    base_weights_hash: str
    kind: TaskKind | int = TaskKind.TRAIN
    schedule: str = "synchronous"
    version: int = 0
    cohort: int = 0
    fold: int = 0
    session: str = ""
    minimum_cohort: int = 0
    weighting: Weighting | int = Weighting.EXAMPLES
    model_bytes: int = 0
    base_weights_bytes: int = 0
    extra_vectors: tuple[ExtraVector, ...] = ()
    payloads: tuple[Section, ...] = ()
    continues: str | None = None
    seed: int = 0
    epochs: int = 1
    max_steps: int = 0
    max_seconds: float = 0.0
    batch_policy: BatchPolicy | int = BatchPolicy.MODEL
    batch_size: int = 0
    learning_rate: float | None = None
    optimizer_state: OptimizerState | int = OptimizerState.RESET
    correction: Correction | int = Correction.NONE
    mu: float = 0.0
    clip_norm: float = 0.0
    codecs: tuple[SectionCodec, ...] = ()
    deadline_seconds: float = 0.0
    outstanding: tuple[str, ...] = ()
    local_test: float = 0.0

    def coding(self, section: str) -> SectionCodec:
        """Says how a section of the outcome is to be written."""
        return next((each for each in self.codecs if each.section == section), SectionCodec(section, "float32"))

    def codec_of(self, section: str) -> str:
        """The name of the codec in which a section of the outcome is to be written."""
        return self.coding(section).codec

    def section(self, name: str, vector: NDArray[np.float32]) -> Section:
        """Writes a section of the outcome as the task wants it.

        Args:
            name: the section's.
            vector: float32 ``[n]``.

        Raises:
            CodecError: see `Section.of`.
        """
        return Section.of(name, vector, *self.coding(name)[1:])

    def encode(self) -> bytes:
        """The message as bytes."""
        builder = new_builder()
        vectors_at = vector_of_tables(
            builder, wire.TaskStartExtraVectorsVector, [_write_vector(builder, each) for each in self.extra_vectors]
        )
        payloads_at = vector_of_tables(
            builder, wire.TaskStartPayloadsVector, [write_section(builder, each) for each in self.payloads]
        )
        codecs_at = vector_of_tables(
            builder, wire.TaskStartCodecsVector, [_write_codec(builder, each) for each in self.codecs]
        )
        strings = {
            name: builder.CreateString(getattr(self, name))
            for name in (
                "population",
                "run",
                "task_id",
                "schedule",
                "session",
                "model_hash",
                "graph_hash",
                "layout_hash",
                "base_weights_hash",
            )
        }
        outstanding_at = None
        if self.outstanding:
            outstanding_at = vector_of_tables(
                builder, wire.TaskStartOutstandingVector, list(map(builder.CreateString, self.outstanding))
            )
        continues_at = None if self.continues is None else builder.CreateString(self.continues)
        wire.TaskStart(builder)
        wire.TaskAddPopulation(builder, strings["population"])
        wire.TaskAddRun(builder, strings["run"])
        wire.TaskAddTaskId(builder, strings["task_id"])
        wire.TaskAddKind(builder, int(self.kind))
        wire.TaskAddSchedule(builder, strings["schedule"])
        wire.TaskAddVersion(builder, self.version)
        wire.TaskAddCohort(builder, self.cohort)
        wire.TaskAddFold(builder, self.fold)
        wire.TaskAddSession(builder, strings["session"])
        wire.TaskAddMinimumCohort(builder, self.minimum_cohort)
        wire.TaskAddWeighting(builder, int(self.weighting))
        wire.TaskAddModelHash(builder, strings["model_hash"])
        wire.TaskAddModelBytes(builder, self.model_bytes)
        wire.TaskAddGraphHash(builder, strings["graph_hash"])
        wire.TaskAddLayoutHash(builder, strings["layout_hash"])
        wire.TaskAddBaseWeightsHash(builder, strings["base_weights_hash"])
        wire.TaskAddBaseWeightsBytes(builder, self.base_weights_bytes)
        wire.TaskAddExtraVectors(builder, vectors_at)
        wire.TaskAddPayloads(builder, payloads_at)
        if continues_at is not None:
            wire.TaskAddContinues(builder, continues_at)
        wire.TaskAddSeed(builder, self.seed)
        wire.TaskAddEpochs(builder, self.epochs)
        wire.TaskAddMaxSteps(builder, self.max_steps)
        wire.TaskAddMaxSeconds(builder, self.max_seconds)
        wire.TaskAddBatchPolicy(builder, int(self.batch_policy))
        wire.TaskAddBatchSize(builder, self.batch_size)
        wire.TaskAddLearningRate(builder, math.nan if self.learning_rate is None else self.learning_rate)
        wire.TaskAddOptimizerState(builder, int(self.optimizer_state))
        wire.TaskAddCorrection(builder, int(self.correction))
        wire.TaskAddMu(builder, self.mu)
        wire.TaskAddClipNorm(builder, self.clip_norm)
        wire.TaskAddCodecs(builder, codecs_at)
        wire.TaskAddDeadlineSeconds(builder, self.deadline_seconds)
        if outstanding_at is not None:
            wire.TaskAddOutstanding(builder, outstanding_at)
        if self.local_test:  # other tasks have the bytes that they had before there was this
            wire.TaskAddLocalTest(builder, self.local_test)
        return finish(builder, wire.TaskEnd(builder), wire.Body.Task)

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Task:
        """Reads a message; payloads are views into ``data``, nothing is copied.

        Raises:
            MessageError: the bytes are not a Task.
            FormatVersionError: it is of another protocol version.
        """
        with Reading("Task") as reading:
            table = reading.body(data, wire.Body.Task, wire.Task)
            budget = Budget(data)
            rate = float(table.LearningRate())
            return cls(
                population=check_name(text(table.Population()), "population"),
                run=check_name(text(table.Run()), "run"),
                task_id=check_name(text(table.TaskId()), "task_id"),
                kind=open_enum(TaskKind, table.Kind()),
                schedule=check_name(text(table.Schedule()), "schedule"),
                version=table.Version(),
                cohort=table.Cohort(),
                fold=table.Fold(),
                session=_name_or_empty(table.Session(), "session"),
                minimum_cohort=table.MinimumCohort(),
                weighting=open_enum(Weighting, table.Weighting()),
                model_hash=check_hash(text(table.ModelHash()), "model_hash"),
                model_bytes=table.ModelBytes(),
                graph_hash=check_hash(text(table.GraphHash()), "graph_hash"),
                layout_hash=check_hash(text(table.LayoutHash()), "layout_hash"),
                base_weights_hash=check_hash(text(table.BaseWeightsHash()), "base_weights_hash"),
                base_weights_bytes=table.BaseWeightsBytes(),
                extra_vectors=tuple(
                    _read_vector(entry, budget)
                    for entry in map(table.ExtraVectors, counted(table.ExtraVectorsLength(), data))
                ),
                payloads=tuple(
                    read_section(entry, data, budget)
                    for entry in map(table.Payloads, counted(table.PayloadsLength(), data))
                ),
                continues=None if table.Continues() is None else _name_or_empty(table.Continues(), "continues"),
                seed=table.Seed(),
                epochs=table.Epochs(),
                max_steps=table.MaxSteps(),
                max_seconds=table.MaxSeconds(),
                batch_policy=open_enum(BatchPolicy, table.BatchPolicy()),
                batch_size=table.BatchSize(),
                learning_rate=None if math.isnan(rate) else rate,
                optimizer_state=open_enum(OptimizerState, table.OptimizerState()),
                correction=open_enum(Correction, table.Correction()),
                mu=table.Mu(),
                clip_norm=table.ClipNorm(),
                codecs=tuple(
                    _read_codec(entry, budget) for entry in map(table.Codecs, counted(table.CodecsLength(), data))
                ),
                deadline_seconds=table.DeadlineSeconds(),
                outstanding=_outstanding(table),
                local_test=table.LocalTest(),
            )


def _name_or_empty(value: bytes | None, what: str) -> str:
    return check_name(text(value), what) if value != b"" else ""


def _outstanding(table: Any) -> tuple[str, ...]:
    # Each is what a device keeps on its disk.
    if table.OutstandingLength() > MOST_OUTSTANDING:
        raise ValueError(f"more than {MOST_OUTSTANDING} tasks are outstanding")
    return tuple(
        check_name(text(each), "outstanding") for each in map(table.Outstanding, range(table.OutstandingLength()))
    )


def _write_vector(builder: Any, vector: ExtraVector) -> int:
    name_at, digest_at = builder.CreateString(vector.name), builder.CreateString(vector.sha256)
    wire.NamedHashStart(builder)
    wire.NamedHashAddName(builder, name_at)
    wire.NamedHashAddSha256(builder, digest_at)
    wire.NamedHashAddBytes(builder, vector.bytes)
    return int(wire.NamedHashEnd(builder))


def _read_vector(entry: Any, budget: Budget) -> ExtraVector:
    return ExtraVector(
        check_name(budget.text(entry.Name()), "a vector"),
        check_hash(budget.text(entry.Sha256()), "a vector"),
        entry.Bytes(),
    )


def _write_codec(builder: Any, codec: SectionCodec) -> int:
    section_at, codec_at = builder.CreateString(codec.section), builder.CreateString(codec.codec)
    wire.SectionCodecStart(builder)
    wire.SectionCodecAddSection(builder, section_at)
    wire.SectionCodecAddCodec(builder, codec_at)
    wire.SectionCodecAddSeed(builder, codec.seed)
    return int(wire.SectionCodecEnd(builder))


def _read_codec(entry: Any, budget: Budget) -> SectionCodec:
    return SectionCodec(
        check_name(budget.text(entry.Section()), "a section"),
        check_codec(budget.text(entry.Codec()), "a codec"),
        entry.Seed(),
    )
