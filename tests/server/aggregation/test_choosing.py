"""What an operator is refused is what every device would decline: both sides' checks run over the same tasks."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from edgefl.algorithms import ALGORITHMS
from edgefl.codecs import encoded_bytes
from edgefl.errors import EdgeflError, InvalidSettingError
from edgefl.layout import Parameter
from edgefl.manifest import Metric, ModelManifest
from edgefl.metrics import finalise
from edgefl.model_file import ModelFile
from edgefl.wire.messages import ExtraVector, SectionCodec, Task
from edgefl_device_runtime import tasks
from edgefl_device_runtime.training import arguments
from edgefl_server.aggregation import RunSettings, SettingError, settle, strategy_for
from edgefl_server.aggregation.update_codecs import chosen_codec, section_codec
from model_files import default_parameters, make_model_file


def manifest_of(statistics: bool = True, **settings: Any) -> ModelManifest:
    return ModelFile(make_model_file(default_parameters(statistics), **settings)).manifest


MANIFESTS = {
    "plain": manifest_of(),
    "mixing": manifest_of(mixes_rows=True),
    "for everything": manifest_of(statistics=False, algorithms=ALGORITHMS),
    "for everything, mixing": manifest_of(algorithms=ALGORITHMS, mixes_rows=True),
    "momentum": manifest_of(algorithms=ALGORITHMS, momentum=0.9),
    "nothing shared": replace(
        manifest_of(), parameters=tuple(replace(each, shared=False) for each in default_parameters())
    ),
    "a later metric": replace(manifest_of(), metrics=(Metric("m", "of another edgefl", ("a",)),)),
    "no rate": replace(manifest_of(algorithms=ALGORITHMS), learning_rate=0.0),
    "a rate that is none": replace(manifest_of(), learning_rate=float("nan")),
}
CHOICES: dict[str, list[Any]] = {
    "strategy": ["fedavg", "fedprox", "scaffold", "feddyn", "fedsgd"],
    "batch_size": [0, 4, 8, 9],
    "learning_rate": [None, 0.0, 0.5, 1e-50],
    "clip_norm": [0.0, 1.0],
    "mu": [None, 0.1],
    "codec": ["float32", "stc"],
}


def task_of(settings: RunSettings, manifest: ModelManifest) -> Task:
    """As the server makes it, and as a device reads it."""
    demand = strategy_for(settings).demand
    hashes = {"layout_hash": manifest.layout_hash, "graph_hash": manifest.graph_hash}
    task = Task(
        "people",
        "run",
        "task",
        "a" * 64,
        base_weights_hash="b" * 64,
        **hashes,
        epochs=settings.epochs,
        max_steps=settings.max_steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        codecs=tuple(SectionCodec(name, section_codec(settings.codec, name)) for name in demand.sections),
        clip_norm=settings.clip_norm,
        kind=demand.kind,
        mu=demand.mu,
        correction=demand.correction,
        extra_vectors=tuple(ExtraVector(name, "c" * 64, 4) for name in demand.vectors),
        continues="",
    )
    return Task.decode(task.encode())


def device_takes(task: Task, manifest: ModelManifest) -> None:
    """Every check that a device makes before its first step and that does not depend on its data."""
    tasks.check_supported(task)
    tasks.check_fits(task, manifest)
    arguments.check_count("epochs", task.epochs)
    arguments.check_learning_rate(manifest, task.learning_rate)
    arguments.check_mu(manifest, task.mu, has_reference=True)
    arguments.check_batch_size(manifest, task.batch_size or None)
    if task.max_steps:
        arguments.check_count("max_steps", task.max_steps)
    finalise(manifest.metrics, {name: [1.0] for metric in manifest.metrics for name in metric.states})


@pytest.mark.parametrize("kind", MANIFESTS)
def test_no_device_declines_a_task_of_a_run_that_was_created(kind: str) -> None:
    manifest, accepted = MANIFESTS[kind], 0
    for values in itertools.product(*CHOICES.values()):
        try:
            settings = settle(RunSettings.of(rounds=1, target=1, **dict(zip(CHOICES, values, strict=True))), manifest)
        except InvalidSettingError:
            continue
        device_takes(task_of(settings, manifest), manifest)
        accepted += 1
    refused = ("nothing shared", "a later metric")
    assert (accepted > 0) != (kind in refused)


@pytest.mark.parametrize(
    ("kind", "settings", "why"),
    [
        ("plain", {"batch_size": 9}, "at most the model's 8"),
        ("mixing", {"batch_size": 4}, "mixes the rows"),
        ("plain", {"strategy": "scaffold"}, "not made for scaffold"),
        ("plain", {"strategy": "fedprox", "mu": 0.1}, "not made for fedprox"),
        ("plain", {"strategy": "feddyn", "mu": 0.1}, "not made for feddyn"),
        ("plain", {"strategy": "fedsgd"}, "not made for fedsgd"),
        ("momentum", {"strategy": "scaffold"}, "momentum"),
        ("no rate", {"strategy": "scaffold"}, "learning rate is 0"),
        ("nothing shared", {}, "nothing to merge"),
        ("a later metric", {}, "finaliser"),
    ],
)
def test_a_run_whose_every_task_would_be_declined_is_refused(kind: str, settings: dict, why: str) -> None:
    manifest = MANIFESTS[kind]
    chosen = RunSettings.of(rounds=1, target=1, **settings)
    with pytest.raises(InvalidSettingError, match=why):
        settle(chosen, manifest)
    with pytest.raises(EdgeflError):
        device_takes(task_of(chosen, manifest), manifest)


def test_a_learning_rate_with_which_every_device_would_diverge_is_refused_unless_another_is_given() -> None:
    manifest = MANIFESTS["a rate that is none"]
    with pytest.raises(InvalidSettingError, match="learning rate nan"):
        settle(RunSettings(rounds=1, target=1), manifest)
    settle(RunSettings(rounds=1, target=1, learning_rate=0.1), manifest)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"deadline_seconds": 0.5}, "deadline_seconds expects a number from 1"),
        ({"task_seconds": 0.001, "lease_seconds": 1}, "task_seconds expects a number from 1"),
        ({"target": 3, "max_failures": 31}, "max_failures expects a number from 0 to 30"),
        ({"over_selection": 10.5}, "over_selection expects a number from 1 to 10"),
        ({"max_update_norm": 1e-7}, "max_update_norm expects a number from 1e-06"),
        ({"clip_norm": 1e-7}, "clip_norm expects a number from 1e-06"),
        ({"learning_rate": 0}, "learning_rate expects a number above 0"),
        ({"learning_rate": 1e7}, "learning_rate expects a number from"),
        ({"strategy": "fedsgd", "server_learning_rate": 1e7}, "server_learning_rate expects a number from"),
    ],
)
def test_a_new_run_is_refused_settings_that_nobody_can_want_and_a_running_one_keeps_them(
    settings: dict, why: str
) -> None:
    chosen = RunSettings.from_json({"rounds": 1, "target": 1, **settings})
    with pytest.raises(InvalidSettingError, match=why) as refused:
        settle(chosen, MANIFESTS["for everything"])
    assert refused.value.hint


@pytest.mark.parametrize(
    "settings",
    [
        {"deadline_seconds": 1},
        {"task_seconds": 300},
        {"target": 3, "max_failures": 30},
        {"over_selection": 10},
        {"max_update_norm": 1e-6},
        {"clip_norm": 1e-6},
        {"learning_rate": 1e6},
    ],
)
def test_what_just_has_a_meaning_is_accepted(settings: dict) -> None:
    settle(RunSettings.of(**{"rounds": 1, "target": 1, **settings}), MANIFESTS["plain"])


def test_a_model_that_learns_nothing_as_it_was_compiled_needs_a_learning_rate() -> None:
    with pytest.raises(InvalidSettingError, match="everything would stay as it is"):
        settle(RunSettings(rounds=1, target=1), MANIFESTS["no rate"])
    settle(RunSettings(rounds=1, target=1, learning_rate=0.1), MANIFESTS["no rate"])


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        ({"strategy": "robust"}, 4),
        ({"rule": "trimmed-mean"}, 4),
        ({"rule": "median", "pre_aggregation": "nnm"}, 4),
        ({"rule": "krum"}, 5),
        ({"rule": "bulyan"}, 7),
        ({"rule": "trimmed-mean", "pre_aggregation": "bucketing", "bucket": 3}, 10),
    ],
)
def test_a_guard_that_would_hold_off_nobody_is_refused(settings: dict, least: int) -> None:
    manifest = MANIFESTS["plain"]
    settle(RunSettings.of(rounds=1, target=least, **settings), manifest)
    with pytest.raises(SettingError, match="it would hold off nobody") as refused:
        settle(RunSettings.of(rounds=1, target=least + 2, minimum=least - 1, **settings), manifest)
    assert f"Ask for {least} devices or more" in str(refused.value)
    # Who says how many there may be is taken at their word, also that there are none.
    settle(RunSettings.of(rounds=1, target=least - 1, byzantine=0, **settings), manifest)
    settle(RunSettings(rounds=1, target=1), manifest)


def test_a_learning_rate_that_comes_to_nothing_before_the_end_is_refused() -> None:
    ends = {"learning_rate_course": "cosine", "learning_rate_every": 4}
    settle(RunSettings(rounds=4, target=1, **ends), MANIFESTS["plain"])
    settle(RunSettings(rounds=9, target=1, **ends, learning_rate_least=0.1), MANIFESTS["plain"])
    with pytest.raises(SettingError, match="comes to 0 after 4 versions, and the run has 5 rounds"):
        settle(RunSettings(rounds=5, target=1, **ends), MANIFESTS["plain"])


def test_a_codec_that_is_to_be_chosen_is_chosen_by_the_size_of_the_model() -> None:
    auto = RunSettings(rounds=1, target=1, codec="auto")
    assert settle(auto, MANIFESTS["plain"]).codec == "float32"
    large = make_model_file([Parameter("kernel", "k", (300, 700))])
    assert settle(auto, ModelFile(large).manifest).codec == "rand-0.25+drive"
    robust = settle(replace(auto, target=4, strategy="robust", hyperparameters={}), ModelFile(large).manifest)
    assert robust.codec == "eden-4"
    # More weights never get a codec of more bits.
    sizes = [4 * size / encoded_bytes(chosen_codec(size), size) for size in (10, 4_000, 5_000, 60_000, 70_000, 10**6)]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 100
