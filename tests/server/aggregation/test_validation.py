from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgefl.codecs import codec_names
from edgefl.errors import OutcomeRefusedError
from edgefl.wire.messages import MetricState, Outcome, OutcomeStatus, Reason, Section, SectionCodec, Task
from edgefl_server.aggregation import Expectation, ModelLimits, decode_outcome, validate

EXPECTED = Expectation("t-1", "b" * 64, "c" * 64, weight_size=4, statistic_size=2, max_norm=100.0)
DELTA, STATISTICS = np.arange(4, dtype=np.float32), np.ones(2, np.float32)
GOOD = Outcome(
    "t-1",
    "b" * 64,
    "c" * 64,
    num_examples=3,
    sections=(Section.of("delta", DELTA, "float32"), Section.of("statistics", STATISTICS, "float32")),
)


def reason_for(outcome: Outcome, expected: Expectation = EXPECTED) -> str:
    with pytest.raises(OutcomeRefusedError) as refused:
        validate(decode_outcome(outcome.encode()), expected)
    return refused.value.reason


def with_delta(vector: np.ndarray, codec: str = "float32") -> Outcome:
    return replace(GOOD, sections=(Section.of("delta", vector.astype(np.float32), codec, 77), GOOD.sections[1]))


@pytest.mark.parametrize("codec", [*codec_names(), "rand-0.5+drive"])
def test_a_good_outcome_becomes_an_update(codec: str) -> None:
    outcome = with_delta(DELTA, codec)
    update = validate(decode_outcome(outcome.encode()), replace(EXPECTED, codecs=(SectionCodec("delta", codec, 77),)))
    assert update is not None
    assert (update.task_id, update.num_examples) == ("t-1", 3)
    np.testing.assert_array_equal(update.delta, outcome.sections[0].vector())
    if codec.startswith("float"):
        np.testing.assert_array_equal(update.delta, DELTA)
    np.testing.assert_array_equal(update.statistics, STATISTICS)


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [
        ("float16", Section.of("delta", DELTA, "float32")),
        ("drive", Section.of("delta", DELTA, "float32")),
        ("float32", Section.of("delta", DELTA, "drive", 77)),
        ("drive", Section.of("delta", DELTA, "drive", 78)),
        ("rand-0.5+drive", Section.of("delta", DELTA, "rand-0.75+drive", 77)),
        ("float32", replace(Section.of("delta", DELTA, "float32"), seed=77)),
        ("float32", replace(Section.of("delta", DELTA, "float32"), codec="zip")),
    ],
)
def test_a_device_answers_in_the_codec_of_its_task_and_with_its_seed(wanted: str, sent: Section) -> None:
    expected = replace(EXPECTED, codecs=(SectionCodec("delta", wanted, 77),))
    assert reason_for(replace(GOOD, sections=(sent, GOOD.sections[1])), expected) == "wrong_codec"
    statistics = Section.of("statistics", STATISTICS, "float16")
    assert reason_for(replace(GOOD, sections=(GOOD.sections[0], statistics)), expected) == "wrong_codec"


def test_what_is_decoded_is_held_to_the_norm_and_to_be_finite() -> None:
    codecs = (SectionCodec("delta", "rand-0.5+drive", 77),)
    good = with_delta(DELTA, "rand-0.5+drive")
    norm = float(np.linalg.norm(good.sections[0].vector()))
    assert norm > 1.2 * float(np.linalg.norm(DELTA))
    assert validate(good, replace(EXPECTED, codecs=codecs, max_norm=1.01 * norm)) is not None
    assert reason_for(good, replace(EXPECTED, codecs=codecs, max_norm=0.99 * norm)) == "norm_exceeded"
    payload = np.array([np.nan], "<f4").tobytes() + bytes(good.sections[0].payload)[4:]
    hostile = replace(good.sections[0], payload=payload)
    assert reason_for(replace(good, sections=(hostile, good.sections[1])), replace(EXPECTED, codecs=codecs)) == (
        "not_finite"
    )
    short = replace(good.sections[0], payload=payload[:-1])
    assert reason_for(replace(good, sections=(short, good.sections[1])), replace(EXPECTED, codecs=codecs)) == (
        "wrong_length"
    )


def test_a_model_without_statistics_needs_only_a_delta() -> None:
    update = validate(replace(GOOD, sections=GOOD.sections[:1]), replace(EXPECTED, statistic_size=0))
    assert update is not None
    assert update.statistics.shape == (0,)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"task_id": "t-2"}, "wrong_task"),
        ({"base_weights_hash": "d" * 64}, "wrong_base_weights"),
        ({"layout_hash": "d" * 64}, "wrong_layout"),
        ({"num_examples": 0}, "bad_num_examples"),
        ({"num_examples": 2**64 - 1}, "bad_num_examples"),
        ({"status": 9}, "malformed"),
        ({"sections": ()}, "malformed"),
        ({"sections": GOOD.sections[:1]}, "malformed"),
        ({"sections": (*GOOD.sections, GOOD.sections[0])}, "malformed"),
        ({"sections": (*GOOD.sections, Section.of("extra", DELTA, "float32"))}, "malformed"),
        ({"sections": (replace(GOOD.sections[0], codec="zip"), GOOD.sections[1])}, "unknown_codec"),
        ({"sections": (Section.of_integers("delta", np.zeros(4, np.uint64), 9), GOOD.sections[1])}, "malformed"),
        ({"sections": (Section.of_bytes("delta", bytes(16)), GOOD.sections[1])}, "malformed"),
        ({"sections": (replace(GOOD.sections[0], announced="0" * 64), GOOD.sections[1])}, "wrong_digest"),
        ({"sections": (replace(GOOD.sections[0], length=5), GOOD.sections[1])}, "wrong_length"),
        ({"sections": (GOOD.sections[0], Section.of("statistics", DELTA, "float32"))}, "wrong_length"),
        ({"metrics": (MetricState("loss_sum", (float("nan"),)),)}, "not_finite"),
        ({"metrics": (MetricState("rows", (1.0,)), MetricState("rows", (1.0,)))}, "malformed"),
        ({"metrics": tuple(MetricState(f"m{i}", (1.0,)) for i in range(300))}, "malformed"),
        ({"metrics": (MetricState("x" * 300, (1.0,)),)}, "malformed"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_reason(change: dict, reason: str) -> None:
    assert reason_for(replace(GOOD, **change)) == reason


def test_a_payload_of_another_length_than_announced_is_refused() -> None:
    short = replace(Section.of("delta", DELTA[:3], "float32"), length=4)
    assert reason_for(replace(GOOD, sections=(short, GOOD.sections[1]))) == "wrong_length"


@given(hnp.arrays(np.float32, 4, elements=st.floats(width=32)))
def test_only_finite_vectors_within_the_norm_are_accepted(vector: np.ndarray) -> None:
    outcome = with_delta(vector)
    if not np.isfinite(vector).all():
        assert reason_for(outcome) == "not_finite"
    elif np.linalg.norm(vector.astype(np.float64)) > 100:
        assert reason_for(outcome) == "norm_exceeded"
    else:
        assert validate(outcome, EXPECTED) is not None


def test_infinite_statistics_are_refused_too() -> None:
    bad = Section.of("statistics", np.array([1, np.inf], np.float32), "float32")
    assert reason_for(replace(GOOD, sections=(GOOD.sections[0], bad))) == "not_finite"


def test_statistics_that_would_leave_float32_are_refused() -> None:
    huge = Section.of("statistics", np.array([0, -3e38], np.float32), "float32")
    assert reason_for(replace(GOOD, sections=(GOOD.sections[0], huge))) == "norm_exceeded"


@pytest.mark.parametrize("status", [OutcomeStatus.DECLINED, OutcomeStatus.FAILED])
def test_a_device_that_gives_up_needs_a_reason_and_sends_no_vectors(status: OutcomeStatus) -> None:
    given_up = replace(GOOD, status=status, reason=Reason.NO_DATA, sections=(), num_examples=0)
    assert validate(given_up, EXPECTED) is None
    assert reason_for(replace(given_up, reason=Reason.NONE)) == "malformed"
    assert reason_for(replace(given_up, sections=GOOD.sections)) == "malformed"
    assert reason_for(replace(given_up, num_examples=2**64 - 1)) == "bad_num_examples"


@given(st.binary(max_size=400))
def test_bytes_that_are_no_message_are_malformed(data: bytes) -> None:
    with pytest.raises(OutcomeRefusedError) as refused:
        decode_outcome(data)
    assert refused.value.reason == "malformed"


def test_an_outcome_of_another_protocol_is_refused_with_what_to_do() -> None:
    with pytest.raises(OutcomeRefusedError, match="version 1, this edgefl speaks 2") as refused:
        decode_outcome((Path(__file__).parents[2] / "core" / "golden" / "outcome.eflm").read_bytes())
    assert (refused.value.reason, refused.value.hint) == ("wrong_protocol", "Update edgefl on the device.")


def test_another_message_is_malformed() -> None:
    task = Task("p", "r", "t-1", "a" * 64, "a" * 64, "a" * 64, "a" * 64)
    with pytest.raises(OutcomeRefusedError) as refused:
        decode_outcome(task.encode())
    assert refused.value.reason == "malformed"


@given(st.data())
def test_a_damaged_message_is_accepted_or_refused_but_never_breaks(data: st.DataObject) -> None:
    damaged = bytearray(GOOD.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        update = validate(decode_outcome(bytes(damaged)), EXPECTED)
    except OutcomeRefusedError:
        return
    assert update is None or np.isfinite(update.delta).all()


LIMITED = replace(EXPECTED, limits=ModelLimits(8, {"loss_sum": 1, "rows": 1, "confusion": 4}))


@pytest.mark.parametrize(
    "states",
    [
        {"rows": (3.0, 3.0)},
        {"rows": ()},
        {"confusion": (1.0,)},
        {"confusion": (1.0, 0.0, 0.0, 1e61)},
        {"rows": (-1.0,)},
        {"rows": (9.0,)},  # of 3 examples, in batches of 8
        {"rows": (2.0**53,)},
    ],
)
def test_metric_states_that_the_model_cannot_give_are_refused(states: dict) -> None:
    outcome = replace(GOOD, metrics=tuple(MetricState(name, values) for name, values in states.items()))
    assert reason_for(outcome, LIMITED) == "bad_metrics"
    assert validate(outcome, EXPECTED) is not None


def test_metric_states_may_be_missing_unknown_or_of_a_batch_that_was_filled_up() -> None:
    states = (MetricState("rows", (8.0,)), MetricState("later", (1.0, 2.0)))
    assert validate(replace(GOOD, metrics=states), LIMITED) is not None
    given_up = replace(GOOD, status=OutcomeStatus.FAILED, reason=Reason.INTERNAL, sections=(), num_examples=0)
    assert validate(replace(given_up, metrics=states), LIMITED) is None


CONTROL = Section.of("control", -DELTA, "float32")
SCAFFOLD = replace(EXPECTED, sections=("delta", "statistics", "control"))


def test_the_sections_that_a_strategy_asks_for_become_part_of_the_update() -> None:
    update = validate(replace(GOOD, sections=(*GOOD.sections, CONTROL)), SCAFFOLD)
    assert update is not None
    np.testing.assert_array_equal(update.section("control"), -DELTA)
    gradient = replace(GOOD, sections=(Section.of("gradient", DELTA, "float32"),))
    update = validate(gradient, replace(EXPECTED, sections=("gradient",)))
    assert update is not None
    np.testing.assert_array_equal(update.section("gradient"), DELTA)
    assert update.delta.size == update.statistics.size == 0


@pytest.mark.parametrize(
    ("control", "reason"),
    [
        (Section.of("control", DELTA[:3], "float32"), "wrong_length"),
        (Section.of("control", np.full(4, np.nan, np.float32), "float32"), "not_finite"),
        (Section.of("control", np.full(4, 1e3, np.float32), "float32"), "norm_exceeded"),
        (replace(CONTROL, announced="0" * 64), "wrong_digest"),
        (Section.of("gradient", DELTA, "float32"), "malformed"),
    ],
)
def test_a_control_section_that_does_not_fit_is_refused_with_its_reason(control: Section, reason: str) -> None:
    assert reason_for(replace(GOOD, sections=(*GOOD.sections, control)), SCAFFOLD) == reason
    assert reason_for(GOOD, SCAFFOLD) == "malformed"
    assert reason_for(replace(GOOD, sections=(*GOOD.sections, CONTROL))) == "malformed"
