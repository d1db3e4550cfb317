"""The two messages that carry tensors: a server's Task and a device's Outcome, and what they consist of."""

from __future__ import annotations

from edgefl.wire.framing import PROTOCOL_VERSION
from edgefl.wire.outcome import MetricState, Outcome
from edgefl.wire.sections import Section
from edgefl.wire.task import MOST_OUTSTANDING, ExtraVector, SectionCodec, Task
from edgefl.wire.vocabulary import (
    BatchPolicy,
    Correction,
    Elements,
    OptimizerState,
    OutcomeStatus,
    Reason,
    TaskKind,
    Weighting,
)

__all__ = [
    "CONTENT_TYPE",
    "CONTROL_TYPE",
    "MOST_OUTSTANDING",
    "PROTOCOL_VERSION",
    "BatchPolicy",
    "Correction",
    "Elements",
    "ExtraVector",
    "MetricState",
    "OptimizerState",
    "Outcome",
    "OutcomeStatus",
    "Reason",
    "Section",
    "SectionCodec",
    "Task",
    "TaskKind",
    "Weighting",
]

CONTENT_TYPE = "application/vnd.edgefl.message"
"""The content type of a Task or an Outcome."""
CONTROL_TYPE = "application/vnd.edgefl+json"
"""The content type of JSON answers to a device and of errors: without it, an answer is not one of an edgefl server."""
