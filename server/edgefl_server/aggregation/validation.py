"""Whether an outcome is one that may be folded. Pure: bytes and expectations in, an update or a reason code out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefl.algorithms import SUMMARY
from edgefl.codecs import codec, is_codec
from edgefl.errors import CodecError, EdgeflError, FormatVersionError, HashMismatchError, OutcomeRefusedError
from edgefl.summaries import Summary
from edgefl.wire.messages import Elements, Outcome, OutcomeStatus, Reason, Section, SectionCodec
from edgefl.wire.refusals import Refusal
from edgefl_server.aggregation.limits import ModelLimits
from edgefl_server.aggregation.updates import Update

__all__ = ["Expectation", "decode_outcome", "most_bytes", "validate", "weight_norm"]

_BYTES_PER_ELEMENT = 8
"""At least two sections of the largest codec."""
_BYTES_BESIDE_VECTORS = 1 << 20
"""Names, hashes and metric states."""
_BYTES_OF_A_SUMMARY = 8 << 20
_MAX_METRICS, _MAX_METRIC_VALUES, _MAX_NAME = 256, 4096, 256
_MAX_EXAMPLES = 2**53
_LARGEST_STATISTIC = 1e30
"""A variance has no natural bound; this one keeps the sums finite. What may become of a statistic is narrower."""
_LARGEST_STATE = 1e60
"""No number of rows brings a float32's sum to it, and no number of devices its sum beyond float64."""


@dataclass(frozen=True)
class Expectation:
    """Everything that the outcome of a task has to fit.

    Attributes:
        task_id: the task's.
        base_weights_hash: the weights that the task named.
        layout_hash: the run's model's.
        weight_size: elements of the sections ``delta``, ``control`` and ``gradient``.
        statistic_size: elements of the section ``statistics``.
        max_norm: largest L2 norm of each section but ``statistics``; infinity: no bound.
        sections: those that the strategy asks for; ``statistics`` only where there are some.
        limits: of the run's model; None: metric states may have any length.
        codecs: how the task says that the sections are to be written, with their seeds; empty: anyhow, as of an outcome
            that was accepted before.
    """

    task_id: str
    base_weights_hash: str
    layout_hash: str
    weight_size: int
    statistic_size: int
    max_norm: float = math.inf
    sections: tuple[str, ...] = ("delta", "statistics")
    limits: ModelLimits | None = None
    codecs: tuple[SectionCodec, ...] = ()


def most_bytes(weight_size: int, statistic_size: int, sections: Sequence[str] = ()) -> int:
    """Returns how many bytes any outcome of a model can need, whatever the codec, and whatever else it says.

    Args:
        weight_size: elements of the layout's weight section.
        statistic_size: of its statistic section.
        sections: that are asked for.
    """
    if SUMMARY in sections:
        return _BYTES_OF_A_SUMMARY
    return _BYTES_PER_ELEMENT * (weight_size + statistic_size) + _BYTES_BESIDE_VECTORS


def decode_outcome(data: bytes | memoryview) -> Outcome:
    """Reads bytes from a device.

    Raises:
        OutcomeRefusedError: ``malformed``, or ``wrong_protocol``.
    """
    try:
        return Outcome.decode(data)
    except FormatVersionError as error:
        raise OutcomeRefusedError(Refusal.WRONG_PROTOCOL, error.message, hint=error.hint) from error
    except EdgeflError as error:
        raise OutcomeRefusedError(Refusal.MALFORMED, error.message, hint=error.hint) from error


def validate(outcome: Outcome, expected: Expectation) -> Update | None:
    """Checks an outcome.

    Args:
        outcome: as decoded.
        expected: what it has to fit.

    Returns:
        The update to fold; None when the device declined or failed, which needs no vectors.

    Raises:
        OutcomeRefusedError: with the reason code of docs/protocol.md.
    """
    if outcome.task_id != expected.task_id:
        raise _refused(Refusal.WRONG_TASK, "task", expected.task_id, outcome.task_id)
    _check_metrics(outcome)
    least = 1 if outcome.status == OutcomeStatus.DONE else 0
    if not least <= outcome.num_examples <= _MAX_EXAMPLES:
        raise OutcomeRefusedError(
            Refusal.BAD_NUM_EXAMPLES, f"num_examples expects {least} to {_MAX_EXAMPLES}, got {outcome.num_examples}."
        )
    if expected.limits is not None:
        _check_states(outcome, expected.limits)
    if outcome.status != OutcomeStatus.DONE:
        _check_unfinished(outcome)
        return None
    if outcome.base_weights_hash != expected.base_weights_hash:
        raise _refused(
            Refusal.WRONG_BASE_WEIGHTS, "base weights", expected.base_weights_hash, outcome.base_weights_hash
        )
    if outcome.layout_hash != expected.layout_hash:
        raise _refused(Refusal.WRONG_LAYOUT, "layout", expected.layout_hash, outcome.layout_hash)
    sizes = {
        name: expected.statistic_size if name == "statistics" else expected.weight_size
        for name in expected.sections
        if name != "statistics" or expected.statistic_size
    }
    names = [section.name for section in outcome.sections]
    if sorted(names) != sorted(sizes):
        raise OutcomeRefusedError(
            Refusal.MALFORMED, f"Expected the sections {', '.join(sizes)}, got {_shorten(', '.join(names)) or 'none'}."
        )
    summary = _summary(outcome, expected) if SUMMARY in sizes else None
    coded = [section for section in outcome.sections if section.name != SUMMARY]
    for section in coded:
        _check_codec(section, expected.codecs)
    vectors = {section.name: _vector(section, sizes[section.name]) for section in coded}
    for name in vectors:
        far_below = name == "statistics" or _is_below(vectors[name], expected.max_norm)
        if not far_below and (norm := weight_norm(vectors[name])) > expected.max_norm:
            raise OutcomeRefusedError(
                Refusal.NORM_EXCEEDED, f"The L2 norm of {name!r} expects at most {expected.max_norm:g}, got {norm:g}."
            )
    if "statistics" in vectors and np.abs(vectors["statistics"]).max(initial=0.0) > _LARGEST_STATISTIC:
        raise OutcomeRefusedError(
            Refusal.NORM_EXCEEDED, f"Every statistic expects at most {_LARGEST_STATISTIC:g} in size."
        )
    return Update(
        outcome.task_id,
        outcome.num_examples,
        vectors,
        metrics=outcome.metrics,
        summary=summary,
        steps=outcome.local_steps,
    )


def _summary(outcome: Outcome, expected: Expectation) -> Summary:
    section = outcome.section(SUMMARY)
    assert section is not None
    try:
        found = Summary.decode(section.content())
    except HashMismatchError as error:
        raise OutcomeRefusedError(Refusal.WRONG_DIGEST, error.message) from error
    except CodecError as error:
        raise OutcomeRefusedError(Refusal.MALFORMED, error.message) from error
    shapes = {name: each.shape for name, each in found.arrays.items()}
    if expected.limits is not None and shapes != expected.limits.arrays:
        raise OutcomeRefusedError(
            Refusal.MALFORMED,
            f"The summary expects the arrays {_shorten(str(dict(expected.limits.arrays)))}, got "
            f"{_shorten(str(shapes))}.",
        )
    if found.rows != outcome.num_examples:
        raise OutcomeRefusedError(
            Refusal.BAD_NUM_EXAMPLES, f"A summary of {found.rows} rows with {outcome.num_examples} examples."
        )
    return found


def _is_below(vector: NDArray[np.float32], bound: float) -> bool:
    """Whether the L2 norm is below a bound as the largest element alone says: no norm is above √n times that."""
    largest = max(float(vector.max(initial=0.0)), -float(vector.min(initial=0.0)))
    return largest * math.sqrt(vector.size) * (1 + 1e-9) < bound


def weight_norm(vector: NDArray[np.float32]) -> float:
    """L2 norm, computed in float64 so that large vectors neither overflow nor lose digits."""
    # numpy's own pairwise sum: that of a BLAS may depend on its number of threads, which wait for cores that are busy.
    return math.sqrt(float(np.sum(np.square(vector, dtype=np.float64))))


def _check_unfinished(outcome: Outcome) -> None:
    if outcome.status not in (OutcomeStatus.DECLINED, OutcomeStatus.FAILED):
        raise OutcomeRefusedError(Refusal.MALFORMED, f"Unknown outcome status {outcome.status:d}.")
    if outcome.reason == Reason.NONE:
        raise OutcomeRefusedError(Refusal.MALFORMED, "An outcome that is not done expects a reason, got none.")
    if outcome.sections:
        raise OutcomeRefusedError(Refusal.MALFORMED, "An outcome that is not done expects no sections.")


def _check_metrics(outcome: Outcome) -> None:
    if len(outcome.metrics) > _MAX_METRICS:
        raise OutcomeRefusedError(
            Refusal.MALFORMED, f"Expected at most {_MAX_METRICS} metric states, got {len(outcome.metrics)}."
        )
    for state in outcome.metrics:
        if not 0 < len(state.name) <= _MAX_NAME or len(state.values) > _MAX_METRIC_VALUES:
            raise OutcomeRefusedError(Refusal.MALFORMED, f"The metric state {_shorten(state.name)!r} is too long.")
        if not all(map(math.isfinite, state.values)):
            raise OutcomeRefusedError(
                Refusal.NOT_FINITE, f"The metric state {_shorten(state.name)!r} has NaN or infinity."
            )
    names = [state.name for state in outcome.metrics]
    if len(set(names)) != len(names):
        raise OutcomeRefusedError(Refusal.MALFORMED, "A metric state comes more than once.")


def _check_states(outcome: Outcome, limits: ModelLimits) -> None:
    for state in outcome.metrics:
        wanted = limits.states.get(state.name)
        if wanted is not None and len(state.values) != wanted:
            raise OutcomeRefusedError(
                Refusal.BAD_METRICS,
                f"The metric state {_shorten(state.name)!r} expects {wanted} elements, got {len(state.values)}.",
            )
        if any(abs(value) > _LARGEST_STATE for value in state.values):
            raise OutcomeRefusedError(
                Refusal.BAD_METRICS,
                f"The metric state {_shorten(state.name)!r} expects at most {_LARGEST_STATE:g} in size.",
            )
        most = limits.most_rows(outcome.num_examples)
        if state.name == "rows" and outcome.status == OutcomeStatus.DONE and not 0 <= state.values[0] <= most:
            raise OutcomeRefusedError(
                Refusal.BAD_METRICS,
                f"The metric state 'rows' expects 0 to {most:g} with {outcome.num_examples} examples, "
                f"got {state.values[0]:g}.",
            )


def _check_codec(section: Section, codecs: tuple[SectionCodec, ...]) -> None:
    """Refuses what the task does not ask for: a device that chose its own seed would choose what is off by how much."""
    if section.elements != Elements.FLOATS:
        raise OutcomeRefusedError(Refusal.MALFORMED, f"Section {section.name!r} expects floats, got something else.")
    wanted = next((each for each in codecs if each.section == section.name), None)
    if codecs and section.codec != (name := wanted.codec if wanted else "float32"):
        raise OutcomeRefusedError(
            Refusal.WRONG_CODEC,
            f"Section {section.name!r} expects the task's codec {name!r}, got {_shorten(section.codec)!r}.",
        )
    if not is_codec(section.codec):
        raise OutcomeRefusedError(
            Refusal.UNKNOWN_CODEC,
            f"Section {section.name!r} is written with the codec {_shorten(section.codec)!r}, which is not there.",
            hint="A codec from outside has to be installed on the server and on every device.",
        )
    seed = 0 if wanted is None or codec(section.codec).exact else wanted.seed
    if codecs and section.seed != seed:
        raise OutcomeRefusedError(
            Refusal.WRONG_CODEC, f"Section {section.name!r} expects the task's seed {seed}, got {section.seed}."
        )


def _vector(section: Section, size: int) -> NDArray[np.float32]:
    if section.length != size:
        raise OutcomeRefusedError(
            Refusal.WRONG_LENGTH, f"Section {section.name!r} expects {size} elements, got {section.length}."
        )
    try:
        vector = section.vector()
    except HashMismatchError as error:
        raise OutcomeRefusedError(Refusal.WRONG_DIGEST, error.message) from error
    except CodecError as error:
        raise OutcomeRefusedError(Refusal.WRONG_LENGTH, error.message) from error
    if not np.isfinite(vector).all():
        raise OutcomeRefusedError(
            Refusal.NOT_FINITE,
            f"Section {section.name!r} has {np.count_nonzero(~np.isfinite(vector))} elements that are NaN or infinite.",
            hint="Training diverged on the device: a smaller learning rate or clipping may help.",
        )
    return vector


def _refused(reason: str, what: str, expected: str, got: str) -> OutcomeRefusedError:
    return OutcomeRefusedError(reason, f"The outcome's {what} should be {expected}, got {_shorten(got)}.")


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}…"
