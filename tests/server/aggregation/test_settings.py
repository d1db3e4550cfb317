from __future__ import annotations

import math

import pytest

from edgefl.errors import InvalidSettingError
from edgefl_server.aggregation import RunSettings, SettingError, run_settings, schedule_for, task_seed
from edgefl_server.aggregation.schedules import Synchronous


@pytest.mark.parametrize(
    ("name", "value", "option"),
    [
        ("rounds", 0, "rounds"),
        ("target", 0, "target"),
        ("minimum", 3, "minimum"),
        ("over_selection", 0.5, "over_selection"),
        ("deadline_seconds", -1, "deadline_seconds"),
        ("lease_seconds", 0, "lease_seconds"),
        ("epochs", 0, "epochs"),
        ("learning_rate", math.nan, "learning_rate"),
        ("clip_norm", -1, "clip_norm"),
        ("learning_rate", math.inf, "learning_rate"),
        ("max_update_norm", math.inf, "max_update_norm"),
        ("max_update_norm", math.nan, "max_update_norm"),
        ("max_update_norm", 0, "max_update_norm"),
        ("max_update_norm", 1e-40, "max_update_norm"),
        ("clip_norm", 1e-40, "clip_norm"),
        ("learning_rate", 1e-40, "learning_rate"),
        ("task_seconds", -1, "task_seconds"),
        ("max_weight_ratio", 0.5, "max_weight_ratio"),
        ("max_weight_ratio", -1, "Or 0: none"),
        ("clip_norm", -1, "above 0, got -1. Or 0: no clipping"),
        ("learning_rate", -1, "above 0, got -1. Usual ones are below 10"),
        ("deadline_seconds", -1, "Or 0: for ever"),
        ("max_weight_ratio", math.nan, "max_weight_ratio"),
        ("max_examples", 0, "max_examples"),
        ("seed", -1, "seed"),
        ("rounds", 10**400, "rounds expects a number from 1 to 1e.06, got one of more than 300 digits"),
        ("seed", -(10**4000), "seed"),
        ("learning_rate", 10**400, "learning_rate"),
    ],
)
def test_a_setting_outside_its_range_is_refused_by_its_option(name: str, value: float, option: str) -> None:
    with pytest.raises(InvalidSettingError, match=option):
        RunSettings.of(**{"rounds": 1, "target": 2, name: value})  # type: ignore[arg-type]


def test_an_unknown_codec_is_refused_with_those_that_exist() -> None:
    with pytest.raises(InvalidSettingError, match="float16, float32"):
        RunSettings(rounds=1, target=1, codec="zip")


@pytest.mark.parametrize("codec", ["auto", "drive", "rand-0.25+drive", "stc-0.04", "rand-0.1+int8"])
def test_a_spelling_of_a_codec_is_a_codec(codec: str) -> None:
    assert RunSettings.from_json(RunSettings(rounds=1, target=1, codec=codec).to_json()).codec == codec


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codec": "stc", "strategy": "scaffold"}, "codec stc does not go with strategy scaffold"),
        ({"codec": "stc", "strategy": "feddyn", "mu": 0.1}, "codec stc does not go with strategy feddyn"),
        ({"codec": "stc-0.04", "clip_norm": 1.0}, "codec stc-0.04 does not go with clip_norm"),
        (
            {"codec": "stc", "strategy": "fedsgd"},
            "codec stc is for delta, and devices of .* send gradient",
        ),
        ({"codec": "rand-0.25+stc"}, "codec"),
        ({"codec": "rand-0.25+drive", "rule": "median"}, "rand-0.25.drive does not go with a robust rule"),
        ({"codec": "stc", "strategy": "robust"}, "stc does not go with a robust rule"),
    ],
)
def test_a_codec_is_refused_where_its_memory_or_its_zeros_would_be_wrong(settings: dict, message: str) -> None:
    with pytest.raises(InvalidSettingError, match=message):
        RunSettings.of(rounds=1, target=1, **settings)


def test_a_codec_that_remembers_is_refused_by_a_schedule_that_merges_as_updates_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stc, drive = (RunSettings(rounds=1, target=1, codec=codec) for codec in ("stc", "drive"))
    schedule_for(stc)
    monkeypatch.setattr(Synchronous, "by_acceptance", True)
    schedule_for(drive)
    with pytest.raises(InvalidSettingError, match=r"stc does not go with .*schedule.* synchronous"):
        schedule_for(stc)


def test_settings_survive_json_and_ignore_names_of_later_versions() -> None:
    settings = RunSettings(rounds=2, target=3, learning_rate=0.5, codec="float16")
    assert RunSettings.from_json({**settings.to_json(), "later": 1}) == settings


def test_a_clipped_update_is_held_to_its_clip_norm() -> None:
    assert RunSettings(rounds=1, target=1, clip_norm=2).norm_bound == pytest.approx(2.02)
    assert RunSettings(rounds=1, target=1, max_update_norm=9).norm_bound == 9


def test_a_minimum_above_the_target_names_both_as_whoever_typed_them_knows_them() -> None:
    with pytest.raises(SettingError) as caught:
        RunSettings(rounds=1, target=5, minimum=10)
    told = str(caught.value.naming(lambda name: {"target": "--cohort"}.get(name, f"--{name}")))
    assert told == "--minimum expects a number from 0 to 5, got 10. It is at most the --cohort."


@pytest.mark.parametrize("strategy", ["fedbuff", "fedasync"])
def test_a_strategy_of_buffers_is_refused_for_new_synchronous_runs(strategy: str) -> None:
    RunSettings(rounds=1, target=1, strategy=strategy, schedule="buffered").require_meaning()
    with pytest.raises(SettingError, match=rf"strategy {strategy} merges updates as they come.*schedule buffered"):
        RunSettings(rounds=1, target=1, strategy=strategy).require_meaning()


def test_a_cohort_is_not_enlarged_by_rounding() -> None:
    assert RunSettings(rounds=1, target=10, over_selection=1.3).cohort_size == 13
    assert RunSettings(rounds=1, target=3, over_selection=1.3).cohort_size == 4


def test_seeds_differ_by_run_seed_round_and_device_and_fit_64_bits() -> None:
    seeds = {task_seed(run, number, device) for run in (1, 2) for number in (1, 2) for device in ("a", "b")}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert task_seed(1, 2, "a") == task_seed(1, 2, "a")


def test_a_device_that_works_again_for_one_cohort_has_other_seeds_and_the_first_stay_what_they_were() -> None:
    assert task_seed(1, 2, "a", 0) == task_seed(1, 2, "a") == 2093860823891237158
    assert len({task_seed(1, 2, "a", turn) for turn in range(20)}) == 20


def test_an_unknown_strategy_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        InvalidSettingError, match=r"strategy expects one of fedasync, fedavg, .*feddyn, .*fedprox"
    ) as refused:
        RunSettings.of(rounds=1, target=1, strategy="FedProxx")
    assert refused.value.hint == "Did you mean fedprox?"


@pytest.mark.parametrize(
    ("strategy", "settings", "option"),
    [
        ("fedavg", {"mu": 0.1}, "mu has no meaning"),
        ("fedavg", {"epoch": 3}, "There is no setting epoch. Did you mean epochs?"),
        ("fedprox", {}, "expects mu above 0"),
        ("feddyn", {}, "expects mu above 0"),
        ("feddyn", {"mu": 1e-50}, "expects mu above 0"),
        ("fedprox", {"mu": -0.1}, "mu expects a number above 0, got -0.1"),
        ("fedprox", {"mu": math.nan}, "mu expects"),
        ("fedprox", {"mu": math.inf}, "mu expects"),
        ("feddyn", {"mu": 0.1, "server_learning_rate": 0.5}, "server_learning_rate has no meaning"),
        ("scaffold", {"server_learning_rate": 0}, "server_learning_rate expects"),
        ("scaffold", {"server_learning_rate": math.nan}, "server_learning_rate expects"),
        ("scaffold", {"clip_norm": 1}, "clip_norm"),
        ("feddyn", {"mu": 0.1, "clip_norm": 1}, "clip_norm"),
        ("fedsgd", {"epochs": 2}, "epochs"),
        ("fedsgd", {"learning_rate": 0.1}, "learning_rate"),
    ],
)
def test_what_a_strategy_cannot_use_is_refused_by_its_option(strategy: str, settings: dict, option: str) -> None:
    with pytest.raises(InvalidSettingError, match=option):
        RunSettings.of(rounds=1, target=1, strategy=strategy, **settings)


def test_settings_from_before_there_were_strategies_are_those_of_fedavg() -> None:
    document = RunSettings(rounds=1, target=1).to_json()
    del document["strategy"]
    assert RunSettings.from_json(document).strategy == "fedavg"


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({"clip_norm": 2, "max_update_norm": 1}, "clip_norm 2 is above max_update_norm 1"),
        ({"deadline_seconds": 60, "task_seconds": 60}, "task_seconds 60 has no meaning with deadline_seconds 60"),
        ({"strategy": "fedsgd", "batch_size": 8}, "batch_size has no meaning"),
        ({"strategy": "fedsgd", "epochs": 2}, "epochs"),
        ({"strategy": "fedsgd", "max_steps": 2}, "max_steps"),
        ({"strategy": "fedsgd", "learning_rate": 0.1}, "learning_rate"),
        ({"strategy": "fedavg", "mu": 0.1}, "mu has no meaning"),
        ({"strategy": "feddyn", "mu": 0.1, "server_learning_rate": 0.5}, "server_learning_rate has no meaning"),
        ({"strategy": "scaffold", "clip_norm": 1.0}, "clip_norm does not go with"),
        ({"target": 2, "minimum": 3}, "minimum"),
        ({"kind": "evaluate", "down_codec": "drive"}, "down_codec has no meaning with kind evaluate"),
        ({"kind": "evaluate", "rule": "median"}, "rule has no meaning with kind evaluate"),
        ({"kind": "evaluate", "patience": 2}, "patience has no meaning with kind evaluate"),
        ({"kind": "evaluate", "epochs_course": "cosine"}, "epochs_course has no meaning with kind evaluate"),
        ({"kind": "statistics", "target": 5, "weighting": "uniform"}, "weighting has no meaning with kind statistics"),
        ({"kind": "statistics", "target": 5, "max_examples": 9}, "max_examples has no meaning with kind statistics"),
        ({"kind": "statistics", "target": 5, "quantiles_from": 9}, "quantiles_from has no meaning with kind"),
        ({"shown_from": 3}, "shown_from has no meaning without evaluate_every"),
        ({"evaluate_cohort": 3}, "evaluate_cohort has no meaning without evaluate_every"),
    ],
)
def test_settings_that_contradict_each_other_or_mean_nothing_are_refused(settings: dict, options: str) -> None:
    with pytest.raises(InvalidSettingError, match=options):
        RunSettings.of(**{"rounds": 1, "target": 2, **settings})


def test_a_task_may_take_twelve_leases_unless_its_time_is_given() -> None:
    assert RunSettings(rounds=1, target=1, lease_seconds=30).effective_task_seconds == 360
    assert RunSettings(rounds=1, target=1, lease_seconds=30, task_seconds=45).effective_task_seconds == 45


def test_the_hyperparameters_of_a_strategy_are_stored_with_the_run_and_its_defaults_too() -> None:
    settings = RunSettings.of(rounds=1, target=1, strategy="scaffold")
    assert settings.hyperparameters == {"server_learning_rate": 1.0}
    assert settings.to_json()["server_learning_rate"] == 1.0
    assert RunSettings.from_json(settings.to_json()) == settings


def test_what_an_earlier_server_wrote_of_other_strategies_is_ignored() -> None:
    document = {**RunSettings(rounds=1, target=1).to_json(), "mu": 0.0, "server_learning_rate": None}
    assert RunSettings.from_json(document) == RunSettings(rounds=1, target=1)


def test_an_error_names_settings_as_those_know_them_who_read_it() -> None:
    with pytest.raises(SettingError) as refused:
        RunSettings.of(rounds=1, target=1, strategy="fedprox")
    assert str(refused.value) == "strategy fedprox expects mu above 0. Start with mu 0.01."
    named = refused.value.naming(lambda name: f"--{name}")
    assert str(named) == "--strategy fedprox expects --mu above 0. Start with --mu 0.01."


def test_every_setting_of_every_strategy_is_offered_once() -> None:
    names = [each.name for each in run_settings()]
    assert len(set(names)) == len(names)
    assert {"rounds", "mu", "server_learning_rate", "seed"} <= set(names)
    for each in run_settings():
        assert each.help.endswith(".")


def test_a_hyperparameter_that_a_strategy_needs_is_said_to_be_required_by_it() -> None:
    shown = {each.name: each.shown for each in run_settings()}
    assert shown["mu"] == "feddyn, fedprox: required"
    assert shown["server_learning_rate"] == (
        "adagrad, adam, fedadagrad, fedadam: 0.1; momentum, sgd, fedavgm, scaffold: 1; yogi, fedyogi: 0.01; "
        "fedsgd: the model's"
    )
