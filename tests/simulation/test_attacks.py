"""Attackers: what they send or train towards, what that does to averaging, and what the server's bounds make of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import edgefl
from edgefl.hashing import weights_hash
from edgefl.model_file import ModelFile
from edgefl.wire.messages import Outcome, Section, SectionCodec, Task
from edgefl_simulation import run_folder
from edgefl_simulation.attacks import FreeRider, LabelFlip, Noise, Scaling, SignFlip, poisoned, relabelled
from quadratic_trainer import quadratic_manifest
from simulated_runs import FakeEngine, coordinator, device_of

HONEST = np.array([1.0, -2.0, 3.0, 0.5], np.float32)
START, NOW = np.zeros(4, np.float32), np.arange(4, dtype=np.float32)


def task_of(task_id="a", version=2, codecs=()):
    names = dict.fromkeys(("population", "run"), "some")
    hashes = dict.fromkeys(("model_hash", "graph_hash", "layout_hash", "base_weights_hash"), "0" * 64)
    return Task(task_id=task_id, seed=5, version=version, codecs=codecs, **names, **hashes)


def outcome_of(task, section):
    return Outcome(task.task_id, task.base_weights_hash, task.layout_hash, num_examples=8, sections=(section,))


def sent(attack, *, codec="float32", version=2, task_id="a", name="delta"):
    task = task_of(task_id, version, (SectionCodec(name, codec),))
    (section,) = poisoned(attack, task, outcome_of(task, Section.of(name, HONEST, codec)), NOW, START).sections
    assert (section.name, section.codec, section.length) == (name, codec, 4)
    return section.vector()


def test_model_poisoning_alters_what_is_sent_in_the_codec_of_the_task():
    assert sent(SignFlip()).tolist() == (-HONEST).tolist()
    assert sent(SignFlip(factor=4.0)).tolist() == (-4 * HONEST).tolist()
    assert sent(Scaling(factor=10.0), codec="float16").tolist() == (10 * HONEST).tolist()
    assert sent(FreeRider()).tolist() == [0.0] * 4
    assert sent(FreeRider(replay=True)).tolist() == (NOW / 2).tolist()
    assert sent(FreeRider(replay=True), version=0).tolist() == [0.0] * 4
    assert sent(SignFlip(), name="gradient").tolist() == (-HONEST).tolist()
    assert sent(SignFlip(), name="control").tolist() == HONEST.tolist()


def test_noise_is_as_large_as_is_said_and_drawn_from_the_task():
    once, again, other = sent(Noise()), sent(Noise()), sent(Noise(), task_id="b")
    assert once.tolist() == again.tolist() != other.tolist()
    task, long = task_of(), np.ones(20_000, np.float32)
    outcome = outcome_of(task, Section.of("delta", long, "float32"))
    (section,) = poisoned(Noise(factor=3.0), task, outcome, long, long).sections
    drawn = section.vector() - long
    assert drawn.mean() == pytest.approx(0, abs=0.1)
    assert drawn.std() == pytest.approx(3.0, abs=0.1)


def test_data_poisoning_mirrors_labels_or_draws_them_and_leaves_the_rows_as_they_are(plain_sgd_file):
    manifest = ModelFile.read(plain_sgd_file).manifest
    (target,) = manifest.targets
    task = task_of()
    rows = {"x": np.zeros((5, 20)), target.name: np.arange(5, dtype=np.int32)}
    assert relabelled(LabelFlip(), task, rows, manifest)[target.name].tolist() == [4, 3, 2, 1, 0]
    drawn = relabelled(LabelFlip(drawn=True), task, {target.name: np.zeros(500, np.int32)}, manifest)[target.name]
    assert (drawn.min(), drawn.max(), drawn.dtype) == (0, 4, np.int32)
    assert rows[target.name].tolist() == [0, 1, 2, 3, 4]
    assert relabelled(SignFlip(), task, rows, manifest)[target.name].tolist() == [0, 1, 2, 3, 4]


def test_labels_that_the_loss_ignores_are_not_flipped(plain_sgd_file):
    manifest = ModelFile.read(plain_sgd_file).manifest
    (target,) = manifest.targets
    manifest = replace(manifest, targets=(replace(target, ignored=-1),))
    for attack in (LabelFlip(), LabelFlip(drawn=True)):
        found = relabelled(attack, task_of(), {target.name: np.array([-1, 0, -1, 4], np.int32)}, manifest)[target.name]
        assert (found == -1).tolist() == [True, False, True, False]


def test_labels_without_classes_are_flipped_where_they_are_some_and_otherwise_left():
    manifest = quadratic_manifest(algorithms=False)
    (target,) = manifest.targets
    task = task_of()

    def flipped(labels):
        return relabelled(LabelFlip(), task, {target.name: np.array(labels, np.float32)}, manifest)[
            target.name
        ].tolist()

    assert target.classes is None
    assert flipped([[1, 0, 0], [0, 0, 1]]) == [[0, 0, 1], [1, 0, 0]]
    assert flipped([0, 1, 1]) == [1, 0, 0]
    assert flipped([0.5, 3.0]) == [0.5, 3.0]


def test_who_attacks_is_told_to_the_engine_and_counted():
    engine = FakeEngine()
    attack = SignFlip()
    run = coordinator(engine, devices=6, attack=lambda device: attack if device == 2 else None, target=6, rounds=2)
    assert [each.costs.attackers for each in run.rounds()] == [1, 1]
    attacked = {device_of(job.task) for job in engine.seen if job.attack is attack}
    assert attacked == {2}


@pytest.fixture
def data(owned):
    found = owned(3, 60)
    return found["x"], found["y"]


SETTINGS = {
    **{"devices": 8, "rounds": 6, "cohort": 8, "workers": 1, "seed": 3, "epochs": 3, "held_out": 0.25},
    **{"evaluate_devices": 0, "minimum_examples": 2},
}


def attacked(kind, share=0.25, **settings):
    return {"attackers": [{"kind": kind, "share": share, **settings}]}


def test_a_quarter_of_attackers_ruins_averaging_and_the_norm_bound_helps(plain_sgd_file, data):
    def accuracy(**settings):
        history = edgefl.simulate(plain_sgd_file, data, **{**SETTINGS, **settings})
        return history.final["accuracy"], history

    honest, without = accuracy()
    scaled = attacked("sign-flip", factor=30.0)
    ruined, _ = accuracy(profile=scaled)
    largest = max(row["diagnostics"]["update_norm"] for row in without.rounds)
    kept, bounded = accuracy(profile=scaled, max_update_norm=3 * largest, minimum=6, deadline_seconds=60)
    assert honest > ruined + 0.2, "averaging does what the attackers want"
    assert kept > ruined + 0.2, "what is too long is refused, and the round goes on without it"
    assert {row["outcomes"].get("failed", 0) > 0 for row in bounded.rounds} == {True}
    assert all("attackers" not in row for row in bounded.rounds)
    for row in bounded.rounds:
        assert any("L2 norm of 'delta'" in text for text in row["errors"])


@pytest.mark.parametrize("kind", ["label-flip", "free-rider", "noise"])
def test_every_attack_changes_what_comes_of_a_run(plain_sgd_file, data, kind):
    settings = {**SETTINGS, "rounds": 2}
    honest = edgefl.simulate(plain_sgd_file, data, **settings)
    history = edgefl.simulate(plain_sgd_file, data, profile=attacked(kind), **settings)
    assert [row["attackers"] for row in history.rounds] == [2, 2]
    assert weights_hash(history.weights) != weights_hash(honest.weights)
    assert history.metric("loss")[-1] > honest.metric("loss")[-1]


PROFILE = {
    "devices": [
        {"like": "pi4", "share": 0.5},
        {
            "like": "phone",
            "share": 0.5,
            "availability": {"kind": "markov", "mean_on_seconds": 9, "mean_off_seconds": 9},
        },
    ],
    "attackers": [{"kind": "noise", "share": 0.2}, {"kind": "label-flip", "share": 0.2, "drawn": True}],
}


def test_a_run_with_profiles_and_attackers_ends_with_the_same_bits_with_more_workers_and_after_a_break(
    plain_sgd_file, data, tmp_path, monkeypatch
):
    monkeypatch.setattr(run_folder, "_PAUSE", 0.0)
    settings = {**SETTINGS, "cohort": 4, "rounds": 4, "profile": PROFILE}

    def plain(history):
        return weights_hash(history.weights), [{**row, "seconds": 0} for row in history.rounds]

    whole = plain(edgefl.simulate(plain_sgd_file, data, **settings))
    assert plain(edgefl.simulate(plain_sgd_file, data, **{**settings, "workers": 2})) == whole

    def stop(row):
        if row["round"] == 2:
            raise KeyboardInterrupt

    folder = {"out": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt):
        edgefl.simulate(plain_sgd_file, data, on_round=stop, **settings, **folder)
    assert plain(edgefl.simulate(plain_sgd_file, data, resume=True, **settings, **folder)) == whole
    with pytest.raises(edgefl.errors.InvalidSettingError, match="other settings: profile is"):
        edgefl.simulate(plain_sgd_file, data, resume=True, **{**settings, "profile": "pi4"}, **folder)


def test_a_pace_and_a_profile_of_devices_are_not_both_taken(plain_sgd_file, data):
    from edgefl_simulation import Steady

    with pytest.raises(edgefl.errors.InvalidSettingError, match="profile says how long devices take, and so do"):
        edgefl.simulate(plain_sgd_file, data, profile="pi4", pace=Steady(1.0), **SETTINGS)
    with pytest.raises(edgefl.errors.InvalidSettingError, match="engine http time and devices are real"):
        edgefl.simulate(plain_sgd_file, data, profile="pi4", engine="http", **SETTINGS)
