"""The two messages that carry tensors: a server's Task and a device's Outcome (messages.fbs, docs/protocol.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgefl.codecs import codec
from edgefl.errors import HashMismatchError
from edgefl.hashing import sha256
from edgefl.wire.framing import (
    PROTOCOL_VERSION,
    Budget,
    Reading,
    counted,
    finish,
    new_builder,
    open_enum,
    text,
    vector_of_tables,
)
from edgefl.wire.generated import messages_generated as wire
from edgefl.wire.vocabulary import BatchPolicy, Correction, OptimizerState, OutcomeStatus, Reason, TaskKind
from edgefl.wire.words import check_hash, check_name, printable

__all__ = [
    "CONTENT_TYPE",
    "CONTROL_TYPE",
    "PROTOCOL_VERSION",
    "BatchPolicy",
    "Correction",
    "ExtraVector",
    "MetricState",
    "OptimizerState",
    "Outcome",
    "OutcomeStatus",
    "Reason",
    "Section",
    "Task",
    "TaskKind",
]

CONTENT_TYPE = "application/vnd.edgefl.message"
"""Of a Task or an Outcome."""
CONTROL_TYPE = "application/vnd.edgefl+json"
"""Of every JSON answer to a device and of every error: what lacks it was not said by an edgefl server."""


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


@dataclass(frozen=True)
class Task:
    """A piece of work for one device.

    Attributes:
        population: whose devices do it.
        run: the training job it belongs to.
        round: counted from 1.
        phase: message number within a round, for protocols that need several.
        task_id: unique; outcomes are idempotent by it.
        kind: an unknown number is kept as an int: the device declines it.
        model_hash: SHA-256 of the model file.
        graph_hash: see `ModelManifest`.
        layout_hash: see `ParameterLayout.hash`.
        base_weights_hash: SHA-256 of the weights to start from.
        seed: every random choice on the device derives from it.
        epochs: passes over the local data.
        max_steps: at most so many batches; 0: no limit.
        max_seconds: at most so long; 0: no limit.
        batch_policy: what to do with left-over rows.
        batch_size: rows per step, at most the model's; 0: the model's.
        learning_rate: None: the model's own.
        optimizer_state: reset or keep slots.
        mu: FedProx's proximal term (Li et al. 2020, section 3.2), FedDyn's alpha; 0: absent.
        clip_norm: bound of the L2 norm of the delta's weight section; 0: none.
        codec: how the outcome's sections are to be written.
        deadline_seconds: how long the server waits, from receipt; 0: for ever.
        extra_vectors: further vectors the task needs.
        correction: what is added to the gradient in every local step.
        continues: task id of this device's latest outcome of the run that was folded; empty: there is none. What the
            device keeps of a run (local parameters, its control variate) is what it was after that task. None: a
            server that does not say.
        model_bytes: what the download of the model file measures; 0: not said.
        base_weights_bytes: what that of the weights measures; 0: not said.
    """

    population: str
    run: str
    round: int
    task_id: str
    model_hash: str
    graph_hash: str
    layout_hash: str
    base_weights_hash: str
    phase: int = 0
    kind: TaskKind | int = TaskKind.TRAIN
    seed: int = 0
    epochs: int = 1
    max_steps: int = 0
    max_seconds: float = 0.0
    batch_policy: BatchPolicy | int = BatchPolicy.MODEL
    batch_size: int = 0
    learning_rate: float | None = None
    optimizer_state: OptimizerState | int = OptimizerState.RESET
    mu: float = 0.0
    clip_norm: float = 0.0
    codec: str = "float32"
    deadline_seconds: float = 0.0
    extra_vectors: tuple[ExtraVector, ...] = ()
    correction: Correction | int = Correction.NONE
    continues: str | None = None
    model_bytes: int = 0
    base_weights_bytes: int = 0

    def encode(self) -> bytes:
        """The message as bytes."""
        builder = new_builder()
        vectors = []
        for vector in self.extra_vectors:
            name_at, digest_at = builder.CreateString(vector.name), builder.CreateString(vector.sha256)
            wire.NamedHashStart(builder)
            wire.NamedHashAddName(builder, name_at)
            wire.NamedHashAddSha256(builder, digest_at)
            wire.NamedHashAddBytes(builder, vector.bytes)
            vectors.append(wire.NamedHashEnd(builder))
        vectors_at = vector_of_tables(builder, wire.TaskStartExtraVectorsVector, vectors)
        strings = {
            name: builder.CreateString(getattr(self, name))
            for name in (
                "population",
                "run",
                "task_id",
                "model_hash",
                "graph_hash",
                "layout_hash",
                "base_weights_hash",
                "codec",
            )
        }
        continues_at = None if self.continues is None else builder.CreateString(self.continues)
        wire.TaskStart(builder)
        wire.TaskAddPopulation(builder, strings["population"])
        wire.TaskAddRun(builder, strings["run"])
        wire.TaskAddRound(builder, self.round)
        wire.TaskAddPhase(builder, self.phase)
        wire.TaskAddTaskId(builder, strings["task_id"])
        wire.TaskAddKind(builder, int(self.kind))
        wire.TaskAddModelHash(builder, strings["model_hash"])
        wire.TaskAddGraphHash(builder, strings["graph_hash"])
        wire.TaskAddLayoutHash(builder, strings["layout_hash"])
        wire.TaskAddBaseWeightsHash(builder, strings["base_weights_hash"])
        wire.TaskAddSeed(builder, self.seed)
        wire.TaskAddEpochs(builder, self.epochs)
        wire.TaskAddMaxSteps(builder, self.max_steps)
        wire.TaskAddMaxSeconds(builder, self.max_seconds)
        wire.TaskAddBatchPolicy(builder, int(self.batch_policy))
        wire.TaskAddBatchSize(builder, self.batch_size)
        wire.TaskAddLearningRate(builder, math.nan if self.learning_rate is None else self.learning_rate)
        wire.TaskAddOptimizerState(builder, int(self.optimizer_state))
        wire.TaskAddMu(builder, self.mu)
        wire.TaskAddClipNorm(builder, self.clip_norm)
        wire.TaskAddCodec(builder, strings["codec"])
        wire.TaskAddDeadlineSeconds(builder, self.deadline_seconds)
        wire.TaskAddExtraVectors(builder, vectors_at)
        wire.TaskAddCorrection(builder, int(self.correction))
        if continues_at is not None:
            wire.TaskAddContinues(builder, continues_at)
        wire.TaskAddModelBytes(builder, self.model_bytes)
        wire.TaskAddBaseWeightsBytes(builder, self.base_weights_bytes)
        return finish(builder, wire.TaskEnd(builder), wire.Body.Task)

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Task:
        """Reads a message.

        Raises:
            MessageError: the bytes are not a Task.
            FormatVersionError: it needs a newer protocol version.
        """
        with Reading("Task") as reading:
            table = reading.body(data, wire.Body.Task, wire.Task)
            rate = float(table.LearningRate())
            return cls(
                population=_name(table.Population(), "population"),
                run=_name(table.Run(), "run"),
                round=table.Round(),
                phase=table.Phase(),
                task_id=_name(table.TaskId(), "task_id"),
                kind=open_enum(TaskKind, table.Kind()),
                model_hash=_hash(table.ModelHash(), "model_hash"),
                graph_hash=_hash(table.GraphHash(), "graph_hash"),
                layout_hash=_hash(table.LayoutHash(), "layout_hash"),
                base_weights_hash=_hash(table.BaseWeightsHash(), "base_weights_hash"),
                seed=table.Seed(),
                epochs=table.Epochs(),
                max_steps=table.MaxSteps(),
                max_seconds=table.MaxSeconds(),
                batch_policy=open_enum(BatchPolicy, table.BatchPolicy()),
                batch_size=table.BatchSize(),
                learning_rate=None if math.isnan(rate) else rate,
                optimizer_state=open_enum(OptimizerState, table.OptimizerState()),
                mu=table.Mu(),
                clip_norm=table.ClipNorm(),
                codec=_name(table.Codec(), "codec"),
                deadline_seconds=table.DeadlineSeconds(),
                extra_vectors=tuple(
                    ExtraVector(_name(entry.Name(), "a vector"), _hash(entry.Sha256(), "a vector"), entry.Bytes())
                    for entry in map(table.ExtraVectors, counted(table.ExtraVectorsLength(), data))
                ),
                correction=open_enum(Correction, table.Correction()),
                continues=_name_or_nothing(table.Continues(), "continues"),
                model_bytes=table.ModelBytes(),
                base_weights_bytes=table.BaseWeightsBytes(),
            )


@dataclass(frozen=True, eq=False)
class Section:
    """A named vector of an outcome, still as its codec wrote it.

    Attributes:
        name: ``delta``, ``control``, ``gradient`` (weight section), ``statistics`` (statistic section), …
        codec: name of the codec.
        length: elements after decoding.
        payload: the codec's bytes; a view into the message when it was decoded.
        digest: SHA-256 of the payload.
    """

    name: str
    codec: str
    length: int
    payload: bytes | memoryview
    digest: str

    @classmethod
    def of(cls, name: str, vector: NDArray[np.float32], codec_name: str) -> Section:
        """Writes a float32 vector of shape ``[n]`` with a codec."""
        payload = codec(codec_name).encode(vector)
        return cls(name, codec_name, vector.size, payload, sha256(payload))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Section)
            and (self.name, self.codec, self.length, self.digest)
            == (other.name, other.codec, other.length, other.digest)
            and bytes(self.payload) == bytes(other.payload)
        )

    def vector(self) -> NDArray[np.float32]:
        """Decodes the payload: float32 of shape ``[length]``, possibly read-only.

        Raises:
            HashMismatchError: the payload is not what the digest says.
            CodecError: the codec is unknown, or the payload is not of this length.
        """
        actual = sha256(self.payload)
        if actual != self.digest:
            raise HashMismatchError(
                f"Section {self.name!r} should have digest {self.digest[:12]}…, got {actual[:12]}…."
            )
        return codec(self.codec).decode(self.payload, self.length)


@dataclass(frozen=True)
class MetricState:
    """An additive state of a metric, in the order of its elements."""

    name: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Outcome:
    """What a device answers to a task.

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
        sections = [_write_section(builder, section) for section in self.sections]
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
            FormatVersionError: it needs a newer protocol version.
        """
        with Reading("Outcome") as reading:
            table = reading.body(data, wire.Body.Outcome, wire.Outcome)
            budget = Budget(data)
            return cls(
                task_id=_name(table.TaskId(), "task_id"),
                status=open_enum(OutcomeStatus, table.Status()),
                reason=open_enum(Reason, table.Reason()),
                base_weights_hash=_hash(table.BaseWeightsHash(), "base_weights_hash"),
                layout_hash=_hash(table.LayoutHash(), "layout_hash"),
                num_examples=table.NumExamples(),
                local_steps=table.LocalSteps(),
                sections=tuple(
                    _read_section(entry, data, budget)
                    for entry in map(table.Sections, counted(table.SectionsLength(), data))
                ),
                metrics=tuple(
                    MetricState(printable(budget.text(entry.Name()), "a metric"), _values(entry, data, budget))
                    for entry in map(table.Metrics, counted(table.MetricsLength(), data))
                ),
                trainer=printable(text(table.Trainer()), "trainer"),
            )


def _name(value: bytes | None, what: str) -> str:
    return check_name(text(value), what)


def _hash(value: bytes | None, what: str) -> str:
    return check_hash(text(value), what)


def _name_or_nothing(value: bytes | None, what: str) -> str | None:
    if value is None:
        return None
    return _name(value, what) if value else ""


def _write_section(builder: Any, section: Section) -> int:
    payload_at = builder.CreateByteVector(bytes(section.payload))
    name_at = builder.CreateString(section.name)
    codec_at = builder.CreateString(section.codec)
    digest_at = builder.CreateString(section.digest)
    wire.SectionStart(builder)
    wire.SectionAddName(builder, name_at)
    wire.SectionAddCodec(builder, codec_at)
    wire.SectionAddLength(builder, section.length)
    wire.SectionAddPayload(builder, payload_at)
    wire.SectionAddDigest(builder, digest_at)
    return int(wire.SectionEnd(builder))


def _read_section(entry: Any, data: bytes | memoryview, budget: Budget) -> Section:
    field_at = entry._tab.Offset(10)
    start, length = entry._tab.Vector(field_at), entry._tab.VectorLen(field_at)
    if not field_at or start + length > len(data):
        raise ValueError("a payload reaches beyond the end")
    budget.spend(length)
    return Section(
        name=check_name(budget.text(entry.Name()), "a section"),
        codec=check_name(budget.text(entry.Codec()), "a codec"),
        length=entry.Length(),
        payload=memoryview(data)[start : start + length],
        digest=check_hash(budget.text(entry.Digest()), "a digest"),
    )


def _values(entry: Any, data: bytes | memoryview, budget: Budget) -> tuple[float, ...]:
    counted(entry.ValuesLength(), data)
    budget.spend(8 * entry.ValuesLength())
    values = entry.ValuesAsNumpy()
    return tuple(float(value) for value in values) if isinstance(values, np.ndarray) else ()
