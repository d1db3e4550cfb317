from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from edgefl.errors import OutcomeRefusedError, StorageError
from edgefl.wire.messages import MetricState, Section
from edgefl_server.aggregation import FoldState
from edgefl_server.aggregation.strategies.fedavg import FedAvg
from edgefl_server.run_text import round_line
from edgefl_server.storage import Swept, close_due_rounds, run_status, stop_run, sweep_outcomes, weights_of_round
from edgefl_server.storage import folding as folding_module
from edgefl_server.storage.tables import VersionRow


@pytest.fixture(params=["sqlite", "postgresql"])
def kind_of_database(request: pytest.FixtureRequest) -> str:
    """What is promised here holds with each."""
    return str(request.param)


class Crash(BaseException):
    """Stands for kill -9: nothing after it is run."""


def final_weights(fleet, run: str) -> bytes:
    return fleet.state.weights.get(weights_of_round(fleet.state, run, None)[0])


def train(fleet, run: str, orders: list[list[int]]) -> bytes:
    for order in orders:
        tasks = {index: fleet.task(fleet.devices[index]) for index in order}
        for index in order:
            fleet.accept(fleet.devices[index], fleet.outcome(tasks[index]))
        fleet.fold()
    assert run_status(fleet.state, run)["state"] == "done"
    return final_weights(fleet, run)


def test_equal_seeds_and_devices_give_equal_bits_in_any_order_and_in_another_run(make_fleet: Callable) -> None:
    results = set()
    for name, orders in (("a", [[0, 1, 2]] * 2), ("b", [[2, 0, 1], [1, 2, 0]])):
        fleet = make_fleet(name)
        fleet.add_devices(3)
        run = fleet.create_run(target=3, rounds=2)
        results.add(train(fleet, run, orders))
    assert len(results) == 1


def test_another_seed_gives_other_weights(make_fleet: Callable) -> None:
    results = set()
    for seed in (1, 2):
        fleet = make_fleet(str(seed))
        fleet.add_devices(2)
        results.add(train(fleet, fleet.create_run(target=2, rounds=1, seed=seed), [[0, 1]]))
    assert len(results) == 2


def test_the_new_weights_are_the_weighted_mean_and_the_next_rounds_base(fleet) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(target=2)
    base = np.frombuffer(fleet.state.weights.get(weights_of_round(fleet.state, run, 0)[0]), "<f4")
    outcomes = []
    for device in devices:
        outcome = fleet.outcome(fleet.task(device))
        fleet.accept(device, outcome)
        outcomes.append(outcome)
    fleet.fold()
    counts = [outcome.num_examples for outcome in outcomes]
    deltas = [np.concatenate([section.vector() for section in outcome.sections]) for outcome in outcomes]
    expected = base + np.average(np.array(deltas, np.float64), axis=0, weights=counts)
    np.testing.assert_allclose(np.frombuffer(final_weights(fleet, run), "<f4"), expected, rtol=1e-6)
    assert fleet.task(devices[0]).base_weights_hash == weights_of_round(fleet.state, run, 1)[0]


def test_metrics_are_those_of_all_rows_of_the_round(fleet) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(target=2)
    rows = [fleet.outcome(fleet.task(device)).num_examples for device in devices]
    for device in devices:
        fleet.finish(device)
    fleet.fold()
    entry = run_status(fleet.state, run)["history"][0]
    assert entry["loss"] == pytest.approx(0.5)
    assert entry["metrics"]["accuracy"] == pytest.approx((sum(rows) - 2) / sum(rows))
    assert entry["num_examples"] == sum(rows)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_weights_that_would_not_be_finite_fail_their_round_and_the_run_goes_on_from_those_before(
    fleet, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    device, *_ = fleet.add_devices(1)
    run = fleet.create_run(target=1, rounds=2)
    before = final_weights(fleet, run)

    def diverging(self, state, updates, cohort):
        return state.moved(np.full(state.weight_size, value), np.zeros(0))

    with monkeypatch.context() as patch:
        patch.setattr(FedAvg, "apply", diverging)
        fleet.finish(device)
        fleet.fold()
    failed, *_ = run_status(fleet.state, run)["history"]
    assert (failed["state"], failed["outcomes"]["discarded"]) == ("failed", 1)
    assert "would not be finite" in failed["why"]
    assert final_weights(fleet, run) == before
    fleet.finish(device)
    fleet.fold()
    assert run_status(fleet.state, run)["state"] == "done"
    assert np.isfinite(np.frombuffer(final_weights(fleet, run), "<f4")).all()


def test_a_devices_own_word_is_bounded_by_the_others_and_status_says_so(fleet) -> None:
    devices = fleet.add_devices(3)
    run = fleet.create_run(target=3, rounds=1)
    base = np.frombuffer(fleet.state.weights.get(weights_of_round(fleet.state, run, 0)[0]), "<f4")
    for device in devices[1:]:
        fleet.accept(device, replace(fleet.outcome(fleet.task(device)), num_examples=100))
    lie = replace(
        fleet.outcome(fleet.task(devices[0])),
        num_examples=2**53,
        sections=(
            Section.of("delta", np.ones(16, np.float32), "float32"),
            Section.of("statistics", np.full(4, -9e29, np.float32), "float32"),
        ),
        metrics=(MetricState("loss_sum", (2.0**53,)), MetricState("rows", (2.0**53,))),
    )
    fleet.accept(devices[0], lie)
    fleet.fold()
    entry = run_status(fleet.state, run)["history"][0]
    assert entry["num_examples"] == 400
    assert (entry["diagnostics"]["devices_capped"], entry["diagnostics"]["weight_cap"]) == (1, 200)
    assert (entry["diagnostics"]["devices_bounded"], entry["diagnostics"]["statistics_bounded"]) == (1, 4)
    assert "1 device counted for no more than 200 examples" in round_line(entry)
    rows = entry["metric_sums"]["rows"][0]
    assert rows < 400 - 100
    weights = np.frombuffer(final_weights(fleet, run), "<f4")
    assert np.abs(weights[:16] - base[:16]).max() < 0.8
    assert np.all(weights[16:] > 0)


def test_statistics_that_nothing_bounds_make_no_variance_negative_in_any_strategy(fleet) -> None:
    devices = fleet.add_devices(2)
    for strategy, more in (("fedavg", {}), ("scaffold", {}), ("feddyn", {"mu": 0.1})):
        run = fleet.create_run(target=2, rounds=1, strategy=strategy, **more)
        for device, statistic in zip(devices, (-3e29, 3e29), strict=True):
            good = fleet.outcome(fleet.task(device))
            bad = Section.of("statistics", np.full(4, statistic, np.float32), "float32")
            others = [each for each in good.sections if each.name != "statistics"]
            fleet.accept(device, replace(good, sections=(*others, bad)))
        fleet.fold()
        statistics = np.frombuffer(final_weights(fleet, run), "<f4")[16:]
        assert np.all((statistics >= 0) & (statistics < 500))


def test_a_device_that_sends_a_state_of_another_length_is_refused_and_hides_nobodys_metrics(fleet) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(target=2, rounds=1)
    good = fleet.outcome(fleet.task(devices[0]))
    wrong = tuple(replace(each, values=each.values * 2) for each in good.metrics)
    with pytest.raises(OutcomeRefusedError) as refused:
        fleet.accept(devices[0], replace(good, metrics=wrong))
    assert refused.value.reason == "bad_metrics"
    for device in devices:
        fleet.finish(device)
    fleet.fold()
    assert run_status(fleet.state, run)["history"][0]["metrics"].keys() == {"accuracy"}


def test_an_accepted_outcome_of_an_earlier_server_is_folded_whatever_its_metrics_are(fleet, monkeypatch) -> None:
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(target=1, rounds=1)
    good = fleet.outcome(fleet.task(device))
    with monkeypatch.context() as patched:
        patched.setattr("edgefl_server.aggregation.validation._check_states", lambda *arguments: None)
        fleet.accept(device, replace(good, metrics=(MetricState("rows", (1.0, 2.0)), *good.metrics[2:])))
    fleet.fold()
    entry = run_status(fleet.state, run)["history"][0]
    assert (entry["state"], entry["loss"]) == ("done", None)
    assert entry["metrics"]["accuracy"] > 0


def test_a_round_that_a_killed_server_left_folding_is_folded_at_the_next_start(make_fleet: Callable) -> None:
    fleet = make_fleet("a")
    devices = fleet.add_devices(2)
    run = fleet.create_run(target=2)
    for device in devices:
        fleet.finish(device)
    assert run_status(fleet.state, run)["history"][0]["state"] == FoldState.FOLDING.value
    fleet.state.close()
    again = make_fleet("a", fleet.clock)
    assert again.fold() is True
    assert again.fold() is False
    assert run_status(again.state, run)["history"][0]["outcomes"]["folded"] == 2


@pytest.mark.parametrize("puts", [1, 2])
def test_a_crash_between_the_vectors_of_a_strategy_with_a_memory_folds_again_to_the_same_bits(
    make_fleet: Callable, monkeypatch, puts: int
) -> None:
    def trained(name: str, crashes: bool) -> tuple[bytes, bytes]:
        fleet = make_fleet(name)
        fleet.add_devices(2)
        run = fleet.create_run(target=2, rounds=2, strategy="scaffold")
        for _ in range(2):
            for device in fleet.devices:
                fleet.finish(device)
            if crashes:
                with monkeypatch.context() as patched:
                    patched.setattr(fleet.state.weights, "put", failing(fleet.state.weights.put, puts))
                    with pytest.raises(Crash):
                        fleet.fold()
                fleet.state.close()
                devices, fleet = fleet.devices, make_fleet(name, fleet.clock)
                fleet.devices = devices
            fleet.fold()
        assert run_status(fleet.state, run)["state"] == "done"
        with fleet.state.database.read() as session:
            control = session.get_one(VersionRow, (run, 2)).slots["control"]
        return final_weights(fleet, run), fleet.state.weights.get(control)

    def failing(put: Callable, after: int) -> Callable:
        left = [after]

        def fail(data: bytes) -> str:
            left[0] -= 1
            if not left[0]:
                raise Crash
            return put(data)

        return fail

    weights, control = trained("undisturbed", crashes=False)
    assert trained("crashed", crashes=True) == (weights, control)
    assert np.any(np.frombuffer(control, "<f4") != 0)


def test_the_devices_of_the_population_are_counted_when_the_round_closes(make_fleet: Callable) -> None:
    fleet = make_fleet("a")
    devices = fleet.add_devices(4)
    run = fleet.create_run(target=2, rounds=1, strategy="scaffold")
    changes = [fleet.outcome(fleet.task(device)).section("control").vector() for device in devices[:2]]
    for device in devices[:2]:
        fleet.finish(device)
    fleet.add_devices(3)  # after the round has closed
    fleet.fold()
    with fleet.state.database.read() as session:
        control = fleet.state.weights.get(session.get_one(VersionRow, (run, 1)).slots["control"])
    expected = np.add(*np.array(changes, np.float64)) / 4  # c + |S|/N · mean(Δc)
    np.testing.assert_allclose(np.frombuffer(control, "<f4"), expected, rtol=1e-6)


def test_a_crash_after_the_new_weights_are_written_folds_again_to_the_same_bits(
    make_fleet: Callable, monkeypatch
) -> None:
    fleet = make_fleet("a")
    devices = fleet.add_devices(2)
    run = fleet.create_run(target=2, rounds=1)
    for device in devices:
        fleet.finish(device)

    written = []

    def crash(data: bytes) -> str:
        written.append(data)
        raise Crash

    monkeypatch.setattr(fleet.state.weights, "put", crash)
    with pytest.raises(Crash):
        fleet.fold()
    fleet.state.close()
    again = make_fleet("a", fleet.clock)
    again.fold()
    assert final_weights(again, run) == written[0]
    assert run_status(again.state, run)["state"] == "done"


def test_a_full_disk_keeps_the_round_folding_and_says_so_until_there_is_space(fleet, monkeypatch) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(target=2, rounds=1)
    for device in devices:
        fleet.finish(device)

    def full(data: bytes) -> str:
        raise StorageError("No space left on device.")

    with monkeypatch.context() as patched:
        patched.setattr(fleet.state.weights, "put", full)
        assert fleet.fold() is False
    entry = run_status(fleet.state, run)["history"][0]
    assert entry["state"] == "folding"
    assert "cannot fold yet: No space left" in entry["why"]
    assert "No space left" in run_status(fleet.state, run)["troubles"][0]
    assert fleet.fold() is False  # it rests
    fleet.clock.now += 5
    assert fleet.fold() is True
    status = run_status(fleet.state, run)
    assert (status["history"][0]["state"], status["history"][0]["why"], status["troubles"]) == ("done", "", [])


def test_a_run_that_is_stopped_while_it_folds_keeps_no_new_weights(fleet, monkeypatch) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(target=2)
    for device in devices:
        fleet.finish(device)
    put = fleet.state.weights.put

    def put_while_stopped(data: bytes) -> str:
        stop_run(fleet.state, run)
        return put(data)

    monkeypatch.setattr(fleet.state.weights, "put", put_while_stopped)
    fleet.fold()
    status = run_status(fleet.state, run)
    assert status["state"] == "stopped"
    assert status["weights_hash"] == status["initial_weights_hash"]
    assert status["history"][0]["outcomes"]["discarded"] == 2


def test_folded_outcomes_are_deleted_and_discarded_ones_are_kept(fleet) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(target=2)
    for device in devices:
        fleet.finish(device)
    fleet.fold()
    assert list(fleet.state.outcomes) == []
    fleet.finish(devices[0])
    stop_run(fleet.state, run)
    assert sweep_outcomes(fleet.state) == Swept(0, 0)
    assert len(list(fleet.state.outcomes)) == 1


def test_the_deadline_folds_what_came_when_it_is_enough(fleet) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(target=2, minimum=1, deadline_seconds=60)
    fleet.finish(devices[0])
    fleet.task(devices[1])
    assert close_due_rounds(fleet.state) is False
    fleet.clock.now += 60
    assert close_due_rounds(fleet.state) is True
    fleet.fold()
    entry = run_status(fleet.state, run)["history"][0]
    assert entry["state"] == "done"
    assert "deadline" in entry["why"]


def test_the_deadline_fails_a_round_with_too_few_and_its_outcomes_are_discarded(fleet) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(target=2, deadline_seconds=60)
    fleet.finish(devices[0])
    fleet.clock.now += 60
    close_due_rounds(fleet.state)
    first, second = run_status(fleet.state, run)["history"]
    assert first["state"] == "failed"
    assert "1 of at least 2 outcomes" in first["why"]
    assert first["outcomes"]["discarded"] == 1
    assert second["state"] == "selecting"
    assert second["base_weights_hash"] == first["base_weights_hash"]
    assert folding_module.fold_pending(fleet.state) is False


def test_as_many_examples_as_no_column_holds_keep_no_round_from_its_end(fleet, monkeypatch) -> None:
    run = fleet.create_run(rounds=1, target=1)
    (device,) = fleet.add_devices(1)
    fleet.finish(device)
    make = folding_module.make

    def of_a_thousand_that_claim_all_they_may(*given):
        made = make(*given)
        return replace(made, figures=replace(made.figures, num_examples=1024 * 2**53))

    monkeypatch.setattr(folding_module, "make", of_a_thousand_that_claim_all_they_may)
    fleet.fold()
    assert run_status(fleet.state, run)["state"] == "done"
