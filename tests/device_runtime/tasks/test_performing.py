"""Everything that a device does with a task, without a file or a socket."""

from __future__ import annotations

import contextlib
import pickle

import numpy as np
import pytest

from edgefl.errors import DataNotReadyError, MissingDependencyError, RuntimeFailure
from edgefl.wire.messages import (
    BatchPolicy,
    Correction,
    ExtraVector,
    OptimizerState,
    OutcomeStatus,
    Reason,
    Section,
    SectionCodec,
    TaskKind,
    Weighting,
)
from edgefl.wire.sections import BYTES, MODULAR
from edgefl_device_runtime.tasks import (
    DeadlinePassedError,
    Examples,
    Received,
    TaskResult,
    capabilities,
    check_deadline,
    perform,
)
from quadratic_trainer import LOCAL, STATISTIC

CENTRE = np.array([6, 7, 8, 9], np.float32)
"""The mean of the rows, to which every step goes by a quarter of the distance."""
RATE = np.float32(0.25)


def ending(result):
    assert isinstance(result, TaskResult)
    return result.outcome.status, result.outcome.reason


def sections(result):
    assert result.error is None
    return {section.name: section.vector() for section in result.outcome.sections}


def test_fedavg_sends_what_training_changed(device):
    device.weights = np.ones(4, np.float32)
    result = device.perform(device.task(epochs=1))
    np.testing.assert_array_equal(sections(result)["delta"], RATE * (CENTRE - 1))
    assert (result.outcome.num_examples, result.outcome.local_steps) == (4, 1)
    states = {state.name: state.values for state in result.outcome.metrics}
    assert states["rows"] == (4.0,)


def test_fedprox_pulls_to_what_was_received(device):
    plain = sections(device.perform(device.task()))["delta"]
    near = sections(device.perform(device.task(mu=2.0)))["delta"]
    assert np.all(np.abs(near) < np.abs(plain))


def test_scaffold_corrects_every_step_and_sends_how_its_control_changed(device):
    control = np.array([1, 2, 3, 4], np.float32)
    result = device.perform(device.scaffold_task(epochs=1), control)
    np.testing.assert_array_equal(device.trainer.correction, control)
    delta = RATE * (CENTRE - control)
    np.testing.assert_array_equal(sections(result)["delta"], delta)
    np.testing.assert_array_equal(sections(result)["control"], -control - delta / RATE)


def test_feddyn_keeps_what_it_ended_with_and_sends_nothing_more(device):
    result = device.perform(device.task(correction=Correction.FEDDYN, mu=0.5, epochs=1))
    assert set(sections(result)) == {"delta"}
    np.testing.assert_array_equal(result.remembered["t1"].control, -0.5 * sections(result)["delta"])


def test_fedsgd_sends_the_gradient_and_takes_no_step(device):
    result = device.perform(device.task(kind=TaskKind.GRADIENT))
    np.testing.assert_array_equal(sections(result)["gradient"], -CENTRE)
    assert (result.outcome.local_steps, device.trainer.trained) == (0, 0)


def test_evaluation_sends_states_and_no_sections(device):
    result = device.perform(device.task(kind=TaskKind.EVALUATE))
    assert (result.outcome.status, result.outcome.sections) == (OutcomeStatus.DONE, ())
    assert (result.outcome.num_examples, device.trainer.trained) == (4, 0)


def test_statistics_are_sent_beside_the_delta_and_not_clipped(make_device):
    device = make_device(STATISTIC)
    found = sections(device.perform(device.task(clip_norm=1.0)))
    assert np.linalg.norm(found["delta"]) == pytest.approx(1.0)
    np.testing.assert_array_equal(found["statistics"], [1.5])


def test_nothing_of_a_local_parameter_is_sent(make_device):
    device = make_device(STATISTIC, LOCAL)
    result = device.perform(device.task())
    assert {name: vector.size for name, vector in sections(result).items()} == {"delta": 4, "statistics": 1}


def test_a_gradient_is_clipped_as_a_delta_is(device):
    found = sections(device.perform(device.task(kind=TaskKind.GRADIENT, clip_norm=0.5)))
    assert np.linalg.norm(found["gradient"]) == pytest.approx(0.5)


@pytest.mark.parametrize("codec", ["float32", "float16"])
def test_the_sections_are_written_with_the_tasks_codec(device, codec):
    result = device.perform(device.scaffold_task(codec=codec), np.ones(4, np.float32))
    assert {section.codec for section in result.outcome.sections} == {codec}


def test_every_section_has_its_own_codec_and_one_that_the_task_does_not_name_is_written_as_float32(make_device):
    device = make_device(STATISTIC)
    result = device.perform(device.task(codecs=(SectionCodec("delta", "float16"),)))
    codecs = {section.name: section.codec for section in result.outcome.sections}
    assert codecs == {"delta": "float16", "statistics": "float32"}


@pytest.mark.parametrize("codec", ["int8", "drive", "eden-3", "rand-0.5+drive", "stc-0.5"])
def test_what_a_codec_draws_comes_from_the_tasks_seed_so_that_a_device_that_does_it_again_sends_the_same(device, codec):
    def sent(seed):
        device.remembered = {}
        task = device.task(codecs=(SectionCodec("delta", codec, seed),))
        (section,) = device.perform(task).outcome.sections
        return section

    first = sent(2**64 - 1)
    assert (first.codec, first.seed, first.length) == (codec, 2**64 - 1, 4)
    assert sent(2**64 - 1) == first
    assert any(bytes(sent(seed).payload) != bytes(first.payload) for seed in range(20)) == (codec != "stc-0.5")


@pytest.mark.parametrize("kind", [TaskKind.TRAIN, TaskKind.GRADIENT])
@pytest.mark.parametrize("codec", ["int8", "drive", "rand-0.25+drive", "eden-2"])
def test_the_clip_norm_holds_for_what_is_decoded(device, codec, kind):
    codecs = tuple(SectionCodec(name, codec, 5) for name in ("delta", "gradient"))
    for bound in (1e-3, 0.5, 1e6):
        result = device.perform(device.task(kind=kind, codecs=codecs, clip_norm=bound))
        (vector,) = sections(result).values()
        assert np.linalg.norm(vector) <= bound * 1.0001
    (free,) = sections(device.perform(device.task(kind=kind, codecs=codecs))).values()
    np.testing.assert_array_equal(vector, free)  # a bound that is far away changes nothing


def test_statistics_are_written_as_the_task_says_whatever_the_codec_of_the_delta(make_device):
    device = make_device(STATISTIC)
    result = device.perform(device.task(codecs=(SectionCodec("delta", "rand-0.25+drive", 7),)))
    usual = sections(device.perform(device.task()))
    np.testing.assert_array_equal(sections(result)["statistics"], usual["statistics"])
    assert result.outcome.section("delta").codec == "rand-0.25+drive"


def test_equal_inputs_give_equal_bytes(device):
    first, second = (device.perform(device.task()).outcome.encode() for _ in range(2))
    assert first == second


def test_examples_may_be_arranged_before(device):
    arranged = Examples({"x": device.data["x"]}, {"y": device.data["y"]})
    first, second = (device.perform(device.task(), data=data).outcome for data in (device.data, arranged))
    assert first.encode() == second.encode()


UNSUPPORTED = [
    {"kind": 4},
    {"kind": 77},
    {"codec": "of a later server"},
    {"codecs": (SectionCodec("statistics", "of a later server"),)},
    {"weighting": 77},
    {"payloads": (Section.of_bytes("roster", b"all"),)},
    {"session": "of a later server"},
    {"codecs": (SectionCodec("delta", "rand-2+drive"),)},
    {"codecs": (SectionCodec("statistics", "stc"),)},
    {"codecs": (SectionCodec("gradient", "stc"),), "kind": TaskKind.GRADIENT},
    {"codecs": (SectionCodec("delta", "stc"),), "clip_norm": 1.0},
    {"codecs": (SectionCodec("delta", "stc"),), "continues": None},
    {"codecs": (SectionCodec("delta", "stc"),), "correction": Correction.FEDDYN, "mu": 0.5},
    {"codecs": (SectionCodec("delta", "stc"),), "run": "r" * 65},
    {"codecs": (SectionCodec("delta", MODULAR),)},
    {"codecs": (SectionCodec("delta", BYTES),)},
    {"batch_policy": 77},
    {"batch_size": 9},
    {"optimizer_state": OptimizerState.KEEP},
    {"correction": 77},
    {"mu": -1.0},
    {"mu": float("nan")},
    {"clip_norm": float("inf")},
    {"learning_rate": -0.5},
    {"deadline_seconds": -1.0},
    {"extra_vectors": (ExtraVector("noise", "c" * 64),)},
    {"correction": Correction.SCAFFOLD},
    {"correction": Correction.FEDDYN},
    {"correction": Correction.FEDDYN, "mu": 0.5, "clip_norm": 1.0},
    {"correction": Correction.FEDDYN, "mu": 0.5, "kind": TaskKind.GRADIENT},
    {"correction": Correction.FEDDYN, "mu": 0.5, "continues": None},
    {"correction": Correction.FEDDYN, "mu": 0.5, "run": "r" * 65},
]


@pytest.mark.parametrize("asked", UNSUPPORTED, ids=str)
def test_what_this_version_does_not_know_is_declined_before_anything_is_done(device, asked):
    result = device.perform(device.task(**asked))
    assert ending(result) == (OutcomeStatus.DECLINED, Reason.UNSUPPORTED_TASK)
    assert "does not know how to do the task" in str(result.error)
    assert device.trainer.trained == 0


def test_every_batch_policy_that_is_known_is_supported(device):
    for policy in BatchPolicy:
        assert device.perform(device.task(batch_policy=policy)).error is None


@pytest.mark.parametrize(
    ("asked", "lacks"),
    [
        ({"mu": 0.5}, "proximal term"),
        ({"correction": Correction.FEDDYN, "mu": 0.5}, "proximal term"),
        ({"correction": Correction.SCAFFOLD, "extra_vectors": (ExtraVector("control", "c" * 64),)}, "correction"),
        ({"kind": TaskKind.GRADIENT}, "gradient"),
    ],
)
def test_a_model_that_was_not_made_for_the_algorithm_is_declined(make_device, asked, lacks):
    device = make_device(algorithms=False)
    result = device.perform(device.task(**asked), np.zeros(4, np.float32))
    assert ending(result) == (OutcomeStatus.DECLINED, Reason.UNSUPPORTED_MODEL)
    assert lacks in str(result.error)


def test_scaffold_with_another_optimizer_is_declined(make_device):
    device = make_device(optimizer={"class_name": "Adam"})
    result = device.perform(device.scaffold_task(), np.zeros(4, np.float32))
    assert ending(result) == (OutcomeStatus.DECLINED, Reason.UNSUPPORTED_MODEL)


@pytest.mark.parametrize("changed", ["layout_hash", "graph_hash"])
def test_another_model_than_the_tasks_fails(device, changed):
    result = device.perform(device.task(**{changed: "1" * 64}))
    assert ending(result) == (OutcomeStatus.FAILED, Reason.HASH_MISMATCH)


@pytest.mark.parametrize("weights", [np.zeros(5, np.float32), np.zeros(4), np.zeros((4, 1), np.float32)])
def test_weights_that_do_not_fit_the_model_fail_the_task(device, weights):
    device.weights = weights
    assert ending(device.perform(device.task())) == (OutcomeStatus.FAILED, Reason.HASH_MISMATCH)


@pytest.mark.parametrize("control", [None, np.zeros(5, np.float32)])
def test_a_vector_that_is_missing_or_does_not_fit_fails_the_task(device, control):
    result = device.perform(device.scaffold_task(), control)
    assert ending(result) == (OutcomeStatus.FAILED, Reason.HASH_MISMATCH)
    assert "control" in str(result.error)


def test_without_local_examples_the_task_is_declined(device):
    device.data = {name: array[:0] for name, array in device.data.items()}
    assert ending(device.perform(device.task())) == (OutcomeStatus.DECLINED, Reason.NO_DATA)


def test_data_that_does_not_fit_the_model_fails_the_task(device):
    result = device.perform(device.task(), data={"pictures": device.data["x"], "y": device.data["y"]})
    assert ending(result) == (OutcomeStatus.FAILED, Reason.DATA_MISMATCH)
    assert "'pictures'" in str(result.error)


def weighted(*weights):
    return {"sample_weight": np.array(weights, np.float32)}


@pytest.mark.parametrize(
    ("minimum", "asked", "more", "takes_part"),
    [
        (4, {}, {}, True),
        (5, {}, {}, False),
        (2, {"batch_size": 1, "max_steps": 1}, {}, False),
        (2, {"batch_size": 1, "max_steps": 2}, {}, True),
        (2, {"batch_size": 1, "max_seconds": 9.0}, {}, False),
        (2, {}, weighted(0, 0, 0, 1), False),
        (2, {}, weighted(0, 0, 1, 1), True),
    ],
)
def test_below_the_owners_minimum_of_examples_the_task_is_declined(device, minimum, asked, more, takes_part):
    device.data = {**device.data, **more}
    result = device.perform(device.task(**asked), minimum_examples=minimum)
    if takes_part:
        assert result.error is None
    else:
        assert ending(result) == (OutcomeStatus.DECLINED, Reason.NOT_READY)
        assert f"takes part with at least {minimum}" in str(result.error)


def test_unless_told_otherwise_a_single_example_is_not_enough(device):
    device.data = {name: array[:1] for name, array in device.data.items()}
    assert ending(device.perform(device.task())) == (OutcomeStatus.DECLINED, Reason.NOT_READY)
    assert device.perform(device.task(), minimum_examples=1).error is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_fail_the_task_and_nothing_is_remembered(make_device, value):
    device = make_device(LOCAL)

    def diverge():
        device.trainer.weights[0] = value

    device.trainer.during_step = diverge
    result = device.perform(device.task())
    assert ending(result) == (OutcomeStatus.FAILED, Reason.DIVERGED)
    assert (result.outcome.sections, result.outcome.metrics, result.remembered) == ((), (), {})


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (RuntimeFailure("the interpreter failed"), OutcomeStatus.FAILED, Reason.UNSUPPORTED_MODEL),
        (DataNotReadyError("it was written to"), OutcomeStatus.DECLINED, Reason.NOT_READY),
        (MemoryError(), OutcomeStatus.FAILED, Reason.OUT_OF_MEMORY),
        (ZeroDivisionError(), OutcomeStatus.FAILED, Reason.INTERNAL),
    ],
)
def test_whatever_goes_wrong_while_training_is_an_outcome(device, error, status, reason):
    def fail():
        raise error

    device.trainer.during_step = fail
    result = device.perform(device.task())
    assert ending(result) == (status, reason)
    assert result.error is error


def test_what_the_owner_has_to_mend_reaches_the_caller(device):
    def fail():
        raise MissingDependencyError("no interpreter")

    device.trainer.during_step = fail
    with pytest.raises(MissingDependencyError):
        device.perform(device.task())


class NotWantedError(Exception):
    pass


def test_a_check_ends_the_task_after_any_step(device):
    steps = []

    def check():
        if len(steps) == 2:
            raise NotWantedError

    with pytest.raises(NotWantedError):
        device.perform(device.task(epochs=9), progress=lambda: steps.append(device.trainer.latest_loss), check=check)
    assert len(steps) == 2
    assert steps[1] < steps[0]


def test_a_check_is_made_before_an_error_becomes_an_outcome(device):
    """A binding may have swallowed what was to end the work, and made an error of its own of it."""

    def swallow():
        raise RuntimeFailure("the callback failed")

    def check():
        raise NotWantedError

    device.trainer.during_step = swallow
    with pytest.raises(NotWantedError):
        device.perform(device.task(), check=check)


def test_the_model_is_at_work_only_within_the_block_that_was_given(device):
    events = []

    @contextlib.contextmanager
    def block():
        events.append("entered")
        yield
        events.append("left")

    device.trainer.during_step = lambda: events.append("step")
    device.perform(device.task(epochs=2), at_work=block())
    assert events == ["entered", "step", "step", "left"]
    device.perform(device.task(codec="of a later server"), at_work=block())
    assert events[4:] == []


def test_what_the_block_raises_is_an_error_of_the_tasks(device):
    @contextlib.contextmanager
    def block():
        raise RuntimeFailure("this model ended the process twice")
        yield

    result = device.perform(device.task(), at_work=block())
    assert ending(result) == (OutcomeStatus.FAILED, Reason.UNSUPPORTED_MODEL)
    assert device.trainer.trained == 0


def test_inputs_and_results_can_be_sent_to_another_process(device):
    """A simulation's workers do that."""
    inputs = (device.scaffold_task(), Received(device.weights, {"control": np.ones(4, np.float32)}), device.data)
    task, received, data = pickle.loads(pickle.dumps(inputs))
    result = pickle.loads(pickle.dumps(perform(task, device.trainer, received, data)))
    assert result.outcome == device.perform(device.scaffold_task(), np.ones(4, np.float32)).outcome
    np.testing.assert_array_equal(result.remembered["t1"].control, device.remembered["t1"].control)


def test_capabilities_are_named_as_in_the_protocol():
    assert capabilities() == {
        "kinds": ["train", "evaluate", "statistics", "gradient"],
        "corrections": ["none", "scaffold", "feddyn"],
        "weightings": ["examples", "uniform"],
        "codecs": ["drive", "eden-2", "eden-3", "eden-4", "float16", "float32", "int8", "rand", "stc"],
        "payloads": [],
    }


@pytest.mark.parametrize("changes", [{"schedule": "of a later server"}, {"weighting": Weighting.UNIFORM}])
def test_how_tasks_follow_each_other_and_what_a_device_counts_for_is_the_servers_business(device, changes):
    usual = device.perform(device.task()).outcome
    assert device.perform(device.task(**changes)).outcome == usual


def test_a_deadline_is_held_against_the_time_that_passed(device):
    check_deadline(device.task(deadline_seconds=2.0), 2.0)
    check_deadline(device.task(), 1e9)
    with pytest.raises(DeadlinePassedError, match="deadline of 2 s passed"):
        check_deadline(device.task(deadline_seconds=2.0), 2.1)


def test_a_task_that_took_too_long_fails_with_that_reason(device):
    def too_late():
        raise DeadlinePassedError("")

    result = device.perform(device.task(), progress=too_late)
    assert ending(result) == (OutcomeStatus.FAILED, Reason.OUT_OF_TIME)


def states(result):
    return {state.name: state.values for state in result.outcome.metrics}


def test_a_share_for_tests_is_not_trained_on_and_tests_the_weights_before_and_after(device):
    device.data = {"x": np.arange(40, dtype=np.float32).reshape(10, 4), "y": np.zeros(10, np.float32)}
    result = device.perform(device.task(local_test=0.35))
    training = {name: array[:7] for name, array in device.data.items()}
    tests = {name: array[7:] for name, array in device.data.items()}
    alone = device.perform(device.task("t2"), data=training)
    np.testing.assert_array_equal(sections(result)["delta"], sections(alone)["delta"])
    assert result.outcome.num_examples == 7
    found = states(result)
    assert {name: found[name] for name in states(alone)} == states(alone)
    for when, weights in (("before", device.weights), ("after", device.weights + sections(alone)["delta"])):
        device.weights = weights
        evaluated = device.perform(device.task("t3", kind=TaskKind.EVALUATE), data=tests)
        assert {name: found[f"{when}/{name}"] for name in states(evaluated)} == states(evaluated)
    assert found["before/rows"] == (3.0,)


def test_too_few_rows_for_tests_are_trained_on_instead(device):
    result = device.perform(device.task(local_test=0.25))  # one of four, and an owner lets no single one go
    assert result.outcome.num_examples == 4
    assert not any("/" in name for name in states(result))


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_for_tests_that_is_none_is_declined(device, share):
    assert ending(device.perform(device.task(local_test=share))) == (OutcomeStatus.DECLINED, Reason.UNSUPPORTED_TASK)
