"""The golden files are the format: if one of these tests fails, devices in the field would fail as well."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgefl.errors import CodecError, EdgeflError, FormatVersionError, HashMismatchError, MessageError
from edgefl.wire import framing
from edgefl.wire.framing import finish, new_builder, vector_of_tables
from edgefl.wire.generated import messages_generated as wire
from edgefl.wire.messages import (
    MOST_OUTSTANDING,
    BatchPolicy,
    Correction,
    ExtraVector,
    MetricState,
    OptimizerState,
    Outcome,
    OutcomeStatus,
    Reason,
    Section,
    SectionCodec,
    Task,
    TaskKind,
    Weighting,
)

GOLDEN = Path(__file__).parent / "golden"

TASK = Task(
    population="pumps",
    run="run-1",
    task_id="run-1-000003-ab-0",
    kind=TaskKind.EVALUATE,
    schedule="buffered",
    version=2,
    cohort=3,
    fold=4,
    session="session-7",
    minimum_cohort=5,
    weighting=Weighting.UNIFORM,
    model_hash="a1" * 32,
    model_bytes=52_000,
    graph_hash="b2" * 32,
    layout_hash="c3" * 32,
    base_weights_hash="d4" * 32,
    base_weights_bytes=1_200,
    extra_vectors=(ExtraVector("control", "e5" * 32, 48),),
    payloads=(
        Section.of_bytes("roster", b"who takes part"),
        Section.of_integers("masks", np.array([0, 7, 2**24 - 1], np.uint64), 2**24),
    ),
    continues="run-1-000002-ab-0",
    seed=2**64 - 2,
    epochs=6,
    max_steps=100,
    max_seconds=2.5,
    batch_policy=BatchPolicy.REFILL,
    batch_size=10,
    learning_rate=0.25,
    optimizer_state=OptimizerState.KEEP,
    correction=Correction.FEDDYN,
    mu=0.5,
    clip_norm=1.5,
    codecs=(SectionCodec("delta", "float16", 2**64 - 3), SectionCodec("statistics", "float32", 9)),
    deadline_seconds=60.0,
    outstanding=("run-1-000002-ab-1", "run-1-000001-ab-1"),
    local_test=0.25,
)
OUTCOME = Outcome(
    task_id="run-1-000003-ab-0",
    status=OutcomeStatus.FAILED,
    reason=Reason.DIVERGED,
    base_weights_hash="d4" * 32,
    layout_hash="c3" * 32,
    num_examples=123,
    local_steps=45,
    sections=(
        Section.of("delta", np.array([1.0, -2.5, 0.0], np.float32), "float32"),
        Section.of("statistics", np.array([0.5], np.float32), "float16"),
        Section.of_integers("masked", np.array([0, 1, 1_000_002], np.uint64), 1_000_003),
    ),
    metrics=(MetricState("accuracy/total", (3.0,)), MetricState("accuracy/count", (4.0,))),
    trainer="edgefl/0.1.0 ai-edge-litert/2.3.0",
)

codec_names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,11}", fullmatch=True)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,11}", fullmatch=True)
texts = st.text(max_size=12).filter(str.isprintable)
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
float32s = st.floats(width=32, allow_nan=False)
sizes = st.integers(0, 2**64 - 1)
counts = st.integers(0, 2**32 - 1)
floats = st.builds(
    Section.of,
    names,
    st.lists(float32s, max_size=5).map(lambda values: np.array(values, np.float32)),
    st.sampled_from(["float32", "float16"]),
)
integers = st.integers(2, 2**64 - 1).flatmap(
    lambda modulus: st.builds(
        Section.of_integers,
        names,
        st.lists(st.integers(0, modulus - 1), max_size=5).map(lambda values: np.array(values, np.uint64)),
        st.just(modulus),
    )
)
drawn = st.builds(
    Section.of,
    names,
    st.lists(st.floats(-1, 1, width=32), max_size=20).map(lambda values: np.array(values, np.float32)),
    st.sampled_from(["drive", "int8", "rand-0.25+eden-2", "stc-0.04"]),
    sizes,
)
sections = floats | drawn | integers | st.builds(Section.of_bytes, names, st.binary(max_size=9))
tasks = st.builds(
    Task,
    population=names,
    run=names,
    task_id=names,
    kind=st.sampled_from(TaskKind),
    schedule=names,
    version=counts,
    cohort=counts,
    fold=counts,
    session=st.just("") | names,
    minimum_cohort=counts,
    weighting=st.sampled_from(Weighting),
    model_hash=hashes,
    model_bytes=sizes,
    graph_hash=hashes,
    layout_hash=hashes,
    base_weights_hash=hashes,
    base_weights_bytes=sizes,
    extra_vectors=st.lists(st.builds(ExtraVector, names, hashes, sizes), max_size=3).map(tuple),
    payloads=st.lists(sections, max_size=2).map(tuple),
    continues=st.none() | st.just("") | names,
    seed=sizes,
    epochs=counts,
    max_steps=counts,
    max_seconds=float32s,
    batch_policy=st.sampled_from(BatchPolicy),
    batch_size=counts,
    learning_rate=st.none() | float32s,
    optimizer_state=st.sampled_from(OptimizerState),
    correction=st.sampled_from(Correction),
    mu=float32s,
    clip_norm=float32s,
    codecs=st.lists(st.builds(SectionCodec, names, codec_names, sizes), max_size=3).map(tuple),
    deadline_seconds=float32s,
    outstanding=st.lists(names, max_size=MOST_OUTSTANDING).map(tuple),
)
metrics = st.builds(MetricState, texts, st.lists(st.floats(allow_nan=False), max_size=4).map(tuple))
outcomes = st.builds(
    Outcome,
    task_id=names,
    status=st.sampled_from(OutcomeStatus),
    reason=st.sampled_from(Reason),
    base_weights_hash=hashes,
    layout_hash=hashes,
    num_examples=st.integers(0, 2**64 - 1),
    local_steps=st.integers(0, 2**64 - 1),
    sections=st.lists(sections, max_size=3).map(tuple),
    metrics=st.lists(metrics, max_size=3).map(tuple),
    trainer=texts,
)


@given(tasks)
@example(TASK)
def test_a_task_survives_the_wire(task: Task) -> None:
    assert Task.decode(task.encode()) == task


@given(outcomes)
@example(OUTCOME)
def test_an_outcome_survives_the_wire(outcome: Outcome) -> None:
    assert Outcome.decode(outcome.encode()) == outcome


def test_the_golden_task_is_read_and_written_to_the_byte() -> None:
    golden = (GOLDEN / "task_2_with_outstanding.eflm").read_bytes()
    task = replace(TASK, local_test=0.0)
    assert Task.decode(golden) == task
    assert task.encode() == golden


def test_a_task_of_before_others_could_be_outstanding_has_the_bytes_that_it_had() -> None:
    golden = (GOLDEN / "task_2.eflm").read_bytes()
    task = replace(TASK, outstanding=(), local_test=0.0)
    assert Task.decode(golden) == task
    assert task.encode() == golden


def test_the_golden_task_with_a_share_for_tests_is_read_and_written_to_the_byte() -> None:
    golden = (GOLDEN / "task_2_with_local_test.eflm").read_bytes()
    assert Task.decode(golden) == TASK
    assert TASK.encode() == golden


def test_more_outstanding_tasks_than_a_device_keeps_are_refused() -> None:
    with pytest.raises(MessageError, match="more than 8 tasks are outstanding"):
        Task.decode(replace(TASK, outstanding=tuple("abcdefghi")).encode())


def test_the_golden_outcome_is_read_and_written_to_the_byte() -> None:
    golden = (GOLDEN / "outcome_2.eflm").read_bytes()
    assert Outcome.decode(golden) == OUTCOME
    assert OUTCOME.encode() == golden


def test_a_message_of_a_later_minor_schema_is_read_and_its_new_fields_ignored() -> None:
    # task_2_with_a_later_field.eflm was written by the schema with one more field at the end of Task.
    golden = (GOLDEN / "task_2_with_a_later_field.eflm").read_bytes()
    assert golden != TASK.encode()
    assert Task.decode(golden) == TASK


@pytest.mark.parametrize(
    "name",
    ["task", "task_with_a_later_field", "task_with_correction", "task_with_sizes", "task_without_late_fields"],
)
def test_a_task_of_the_first_protocol_is_refused_with_what_to_do(name: str) -> None:
    with pytest.raises(FormatVersionError, match="version 1, this edgefl speaks 2") as refused:
        Task.decode((GOLDEN / f"{name}.eflm").read_bytes())
    assert refused.value.hint == "Update edgefl on the server."


def test_an_outcome_of_the_first_protocol_is_refused_with_what_to_do() -> None:
    with pytest.raises(FormatVersionError, match="version 1, this edgefl speaks 2") as refused:
        Outcome.decode((GOLDEN / "outcome.eflm").read_bytes())
    assert refused.value.hint == "Update edgefl on the device."


def test_a_section_whose_codec_is_not_named_is_written_as_float32() -> None:
    assert [TASK.codec_of(name) for name in ("delta", "statistics", "control")] == ["float16", "float32", "float32"]


TRICKS = [
    "",
    "../../etc/passwd",
    "/etc/passwd",
    "a/b",
    "..",
    ".",
    "a\\b",
    "a\0b",
    "a\nb",
    "a" * 300,
    "é",
    "%2e%2e%2f",
    "~root",
    "C:",
]


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize(
    "field",
    ["population", "run", "task_id", "schedule", "model_hash", "graph_hash", "layout_hash", "base_weights_hash"],
)
def test_no_word_of_a_task_can_become_a_path_or_a_line_of_a_log(field: str, trick: str) -> None:
    with pytest.raises(MessageError, match="Expected"):
        Task.decode(replace(TASK, **{field: trick}).encode())


@pytest.mark.parametrize("trick", TRICKS)
def test_no_part_and_no_predecessor_of_a_task_can_become_a_path(trick: str) -> None:
    tasks = [
        replace(TASK, extra_vectors=(ExtraVector(trick, "e5" * 32),)),
        replace(TASK, extra_vectors=(ExtraVector("control", trick),)),
        replace(TASK, codecs=(SectionCodec(trick, "float32"),)),
        replace(TASK, codecs=(SectionCodec("delta", trick),)),
        *(
            replace(TASK, payloads=(replace(TASK.payloads[0], **{name: trick}),))
            for name in ("name", "codec", "announced")
        ),
        # Empty: nothing was folded yet, and no session.
        *([replace(TASK, continues=trick), replace(TASK, session=trick)] if trick else []),
    ]
    for task in tasks:
        with pytest.raises(MessageError, match="Expected"):
            Task.decode(task.encode())


@pytest.mark.parametrize("trick", TRICKS)
def test_no_word_of_an_outcome_can_become_a_path_or_a_line_of_a_log(trick: str) -> None:
    section = OUTCOME.sections[0]
    for changed in (
        replace(OUTCOME, task_id=trick),
        replace(OUTCOME, base_weights_hash=trick),
        replace(OUTCOME, layout_hash=trick),
        *(replace(OUTCOME, sections=(replace(section, **{name: trick}),)) for name in ("name", "codec", "announced")),
    ):
        with pytest.raises(MessageError, match="Expected"):
            Outcome.decode(changed.encode())


@pytest.mark.parametrize("text", ["a\nb", "\x1b[2J", "a" * 257, "a\u2028b", "\u202eb"])
def test_free_text_of_an_outcome_cannot_forge_a_line(text: str) -> None:
    for changed in (replace(OUTCOME, trainer=text), replace(OUTCOME, metrics=(MetricState(text, (1.0,)),))):
        with pytest.raises(MessageError, match="printable"):
            Outcome.decode(changed.encode())


def test_a_message_of_a_newer_protocol_is_refused_with_both_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setattr(framing, "PROTOCOL_VERSION", 9)
        from_the_future = TASK.encode()
    with pytest.raises(FormatVersionError, match="version 9, this edgefl speaks 2") as refused:
        Task.decode(from_the_future)
    assert refused.value.hint == "Update edgefl on the device."


def test_enumerations_are_open_so_that_a_device_can_decline_what_it_does_not_know() -> None:
    assert Task.decode(replace(TASK, kind=77).encode()).kind == 77
    assert Outcome.decode(replace(OUTCOME, reason=200).encode()).reason == 200


def test_a_task_is_not_an_outcome() -> None:
    with pytest.raises(MessageError, match="Outcome"):
        Outcome.decode(TASK.encode())
    with pytest.raises(MessageError, match="Task"):
        Task.decode(OUTCOME.encode())


@given(st.binary(max_size=200))
@example(b"")
@example(b"\x00" * 64)
@example(b"\x10\x00\x00\x00EFLM" + b"\xff" * 64)
def test_bytes_that_are_no_message_are_refused_with_a_clear_error(data: bytes) -> None:
    with pytest.raises(MessageError):
        Outcome.decode(data)


@given(st.data())
def test_a_damaged_message_is_refused_or_read_but_never_crashes(data: st.DataObject) -> None:
    message = bytearray(OUTCOME.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(message)))
    for damaged in (bytes(message), bytes(message[:cut])):
        try:
            outcome = Outcome.decode(damaged)
            for section in outcome.sections:
                section.vector()
        except EdgeflError:
            pass


def test_a_small_message_cannot_unfold_into_a_large_one() -> None:
    builder = new_builder()
    values = builder.CreateNumpyVector(np.zeros(10_000))
    texts = {name: builder.CreateString(name) for name in ("task", "trainer", "state")}
    texts |= {name: builder.CreateString("0" * 64) for name in ("base", "layout")}
    wire.MetricStateStart(builder)
    wire.MetricStateAddName(builder, texts["state"])
    wire.MetricStateAddValues(builder, values)
    state = wire.MetricStateEnd(builder)
    metrics = vector_of_tables(builder, wire.OutcomeStartMetricsVector, [state] * 20_000)
    sections = vector_of_tables(builder, wire.OutcomeStartSectionsVector, [])
    wire.OutcomeStart(builder)
    wire.OutcomeAddTaskId(builder, texts["task"])
    wire.OutcomeAddBaseWeightsHash(builder, texts["base"])
    wire.OutcomeAddLayoutHash(builder, texts["layout"])
    wire.OutcomeAddTrainer(builder, texts["trainer"])
    wire.OutcomeAddSections(builder, sections)
    wire.OutcomeAddMetrics(builder, metrics)
    message = finish(builder, wire.OutcomeEnd(builder), wire.Body.Outcome)
    assert len(message) < 200_000  # and would hold 200 million numbers

    with pytest.raises(MessageError, match="overlap"):
        Outcome.decode(message)


def test_the_length_of_an_outcome_does_not_depend_on_the_values_it_carries() -> None:
    def length(num_examples: int, value: float) -> int:
        vector = np.full(8, value, np.float32)
        return len(
            Outcome(
                task_id="t",
                base_weights_hash="0" * 64,
                layout_hash="0" * 64,
                num_examples=num_examples,
                local_steps=num_examples,
                sections=(Section.of("delta", vector, "float32"),),
                metrics=(MetricState("loss", (value,)),),
            ).encode()
        )

    assert length(0, 0.0) == length(7, 1.5) == length(2**40, -1e30)


def test_payloads_are_views_into_the_message() -> None:
    message = OUTCOME.encode()
    payload = Outcome.decode(message).sections[0].payload
    assert isinstance(payload, memoryview)
    assert payload.obj is message


def test_a_section_whose_payload_was_changed_on_the_way_is_refused() -> None:
    section = Outcome.decode(OUTCOME.encode()).sections[0]
    assert section.announced == section.digest
    with pytest.raises(HashMismatchError, match="digest"):
        replace(section, payload=bytes(len(section.payload))).vector()


def test_a_section_that_was_made_here_is_hashed_only_for_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefl.wire.sections.sha256", lambda payload: pytest.fail("it was hashed"))
    section = Section.of("delta", np.ones(3, np.float32), "float32")
    assert section.vector().sum() == 3


def test_a_section_of_an_unknown_codec_is_refused() -> None:
    section = Section.of("delta", np.ones(3, np.float32), "float32")
    with pytest.raises(CodecError, match="Unknown codec 'zip'"):
        replace(section, codec="zip").vector()


@given(st.data(), st.integers(2, 2**64 - 1))
def test_integers_survive_in_as_few_bytes_as_the_modulus_needs(data: st.DataObject, modulus: int) -> None:
    numbers = np.array(data.draw(st.lists(st.integers(0, modulus - 1), max_size=8)), np.uint64)
    section = Section.of_integers("masked", numbers, modulus)
    np.testing.assert_array_equal(section.integers(), numbers)
    assert len(section.payload) == numbers.size * -(-(modulus - 1).bit_length() // 8)


def test_an_integer_that_is_not_below_the_modulus_is_neither_written_nor_read() -> None:
    with pytest.raises(CodecError, match="below 1000, got 1000"):
        Section.of_integers("masked", np.array([1000], np.uint64), 1000)
    forged = replace(Section.of_integers("masked", np.array([1023], np.uint64), 1024), modulus=1000)
    with pytest.raises(CodecError, match="below 1000, got 1023"):
        forged.integers()


@pytest.mark.parametrize("modulus", [0, 1, 2**64])
def test_a_modulus_that_is_none_is_refused(modulus: int) -> None:
    with pytest.raises(CodecError, match="modulus from 2"):
        Section.of_integers("masked", np.array([0], np.uint64), modulus)


@pytest.mark.parametrize(
    ("section", "modulus"),
    [(OUTCOME.sections[0], 7), (OUTCOME.sections[2], 0), (OUTCOME.sections[2], 1), (TASK.payloads[0], 7)],
)
def test_a_section_whose_modulus_does_not_belong_to_it_is_refused(section: Section, modulus: int) -> None:
    with pytest.raises(MessageError, match="modulus"):
        Outcome.decode(replace(OUTCOME, sections=(replace(section, modulus=modulus),)).encode())


def test_a_section_is_not_read_as_what_it_is_not() -> None:
    vector, integers, plain = OUTCOME.sections[0], OUTCOME.sections[2], TASK.payloads[0]
    for read in (integers.vector, plain.vector, vector.integers, plain.integers, vector.content, integers.content):
        with pytest.raises(CodecError, match=r"expects (floats|integers|bytes), got (floats|integers|bytes)"):
            read()
    assert plain.content() == b"who takes part"


def test_elements_of_a_later_kind_are_kept_by_their_number_and_not_read() -> None:
    later = replace(OUTCOME.sections[0], elements=9, modulus=5)
    (section,) = Outcome.decode(replace(OUTCOME, sections=(later,)).encode()).sections
    assert (section.elements, section.modulus) == (9, 5)
    with pytest.raises(CodecError, match="expects floats, got elements of kind 9"):
        section.vector()


@pytest.mark.parametrize("change", [{"length": 4}, {"length": 2}, {"length": 2**32 - 1}])
def test_a_section_of_another_length_than_its_payload_is_refused(change: dict[str, int]) -> None:
    for section, read in (
        (OUTCOME.sections[2], Section.integers),
        (TASK.payloads[0], Section.content),
        (OUTCOME.sections[0], Section.vector),
    ):
        with pytest.raises(CodecError, match="expects"):
            read(replace(section, **change))


def test_every_field_of_the_dataclasses_is_in_the_golden_messages_with_a_value_of_its_own() -> None:
    for golden in (TASK, OUTCOME):
        for field in fields(golden):
            assert getattr(golden, field.name) != field.default, field.name
