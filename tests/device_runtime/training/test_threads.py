"""The choice of a number of threads, with a made-up clock: no test here depends on how fast a machine is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefl.errors import InvalidSettingError, RuntimeFailure
from edgefl.model_file import ModelFile
from edgefl_device_runtime.training import TrainableModel, threads
from edgefl_device_runtime.training.threads import candidates, choose_threads, physical_cores, time_threads
from edgefl_device_runtime.training.threads_child import fastest


class Machine:
    """Steps that take as long as they are told, and a clock that nothing else moves."""

    def __init__(self, seconds: Mapping[int, float | Sequence[float]]) -> None:
        self.now = 0.0
        self.loaded: list[int] = []
        self.steps: list[int] = []
        self._seconds = seconds

    def clock(self) -> float:
        return self.now

    def load(self, threads: int) -> Callable[[], None]:
        self.loaded.append(threads)
        given = self._seconds[threads]
        series = iter([given] if isinstance(given, float) else given)
        last = [0.0]

        def step() -> None:
            last[0] = next(series, last[0])
            self.now += last[0]
            self.steps.append(threads)

        return step

    def choose(self) -> int:
        return fastest(sorted(self._seconds), self.load, self.clock)[0]


@pytest.mark.parametrize(
    ("seconds", "choice"),
    [
        ({1: 1.0, 2: 0.6, 3: 0.45, 4: 0.38}, 4),
        ({1: 1.0, 2: 0.95, 3: 0.93, 4: 0.91}, 1),
        ({1: 1.0, 2: 0.6, 3: 0.58, 4: 0.57}, 2),
        ({1: 1.0, 2: 1.2, 3: 1.3, 4: 0.5}, 4),
        ({1: 0.0002, 2: 0.0004}, 1),
        ({1: 1.0}, 1),
    ],
)
def test_more_threads_are_chosen_only_where_they_save_more_than_a_tenth(seconds: Any, choice: int) -> None:
    assert Machine(seconds).choose() == choice


def test_turns_alternate_so_that_a_drifting_machine_slows_both_alike() -> None:
    drift = [1.0 + 0.1 * step for step in range(40)]
    assert Machine({1: drift, 2: [0.97 * each for each in drift]}).choose() == 1
    assert Machine({1: drift, 2: [0.5 * each for each in drift]}).choose() == 2


def test_threads_that_collapse_are_left_after_their_first_step_and_more_of_them_are_not_tried() -> None:
    machine = Machine({1: 0.001, 2: 0.1, 3: 0.1})
    assert machine.choose() == 1
    assert machine.steps.count(2) == 1
    assert machine.loaded == [1, 2]


def test_one_slow_step_by_chance_does_not_count_but_two_do() -> None:
    assert Machine({1: 1.0, 2: [0.5, 9.0, 0.5]}).choose() == 2
    machine = Machine({1: 1.0, 2: [0.5, 9.0, 9.0, 0.5]})
    assert machine.choose() == 1
    assert machine.steps.count(2) == 3


def test_a_slow_first_step_is_preparation() -> None:
    assert Machine({1: [3.0, 1.0], 2: [5.0, 0.5]}).choose() == 2


def test_every_number_is_tried_up_to_four_and_then_doubles_and_all() -> None:
    assert [candidates(cores) for cores in (1, 2, 4, 6, 16)] == [
        *([1], [1, 2], [1, 2, 3, 4], [1, 2, 3, 4, 6], [1, 2, 3, 4, 8, 16])
    ]


def test_two_threads_of_one_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cpu in range(4):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 2},{cpu % 2 + 2}\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert physical_cores(tmp_path) == 2
    assert physical_cores(tmp_path / "a machine that does not say") == 4


class Asked:
    """Stands in for `time_threads` and counts."""

    def __init__(self, threads: int = 2) -> None:
        self.threads, self.calls = threads, 0

    def __call__(self, source: Any, manifest: Any, runtime: str, tried: Sequence[int]) -> threads.Timed:
        self.calls += 1
        return self.threads, {1: 0.2, self.threads: 0.1}


@pytest.fixture
def model(mlp_file: Path) -> ModelFile:
    return ModelFile.read(mlp_file)


def test_the_answer_is_remembered_for_model_runtime_and_cores(model: ModelFile, tmp_path: Path) -> None:
    asked, file = Asked(), tmp_path / "threads.json"

    def choose(runtime: str = "ai-edge-litert", cores: int = 4) -> int:
        return choose_threads(model.name, model.manifest, runtime, file, cores=cores, measure=asked)

    assert [choose(), choose()] == [2, 2]
    assert asked.calls == 1
    choose("tflite-runtime")
    choose(cores=2)
    assert asked.calls == 3
    assert [answer["threads"] for answer in json.loads(file.read_text()).values()] == [2, 2, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["threads.json"]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1]", '{"a": 3}', '{"KEY": {"threads": "2"}}', '{"KEY": {"threads": 0}}', "\0\xff", "[" * 9**5],
)
def test_a_damaged_file_is_measured_again_and_replaced(model: ModelFile, tmp_path: Path, content: str) -> None:
    asked, file = Asked(), tmp_path / "threads.json"
    choose_threads(model.name, model.manifest, "ai-edge-litert", file, cores=4, measure=asked)
    (key,) = json.loads(file.read_text())
    file.write_bytes(content.replace("KEY", key).encode("latin-1"))
    assert choose_threads(model.name, model.manifest, "ai-edge-litert", file, cores=4, measure=asked) == 2
    assert asked.calls == 2
    assert json.loads(file.read_text())[key]["threads"] == 2


def test_one_core_and_a_folder_that_cannot_be_written_need_no_file(model: ModelFile, tmp_path: Path) -> None:
    asked = Asked()
    assert choose_threads(model.name, model.manifest, "ai-edge-litert", None, cores=1, measure=asked) == 1
    assert asked.calls == 0
    missing = tmp_path / "missing" / "threads.json"
    assert choose_threads(model.name, model.manifest, "ai-edge-litert", missing, cores=4, measure=asked) == 2


def test_where_nothing_can_be_measured_one_thread_is_taken_and_not_remembered(model: ModelFile, tmp_path: Path) -> None:
    def fail(*_: Any) -> threads.Timed:
        raise RuntimeFailure("It fails.")

    file = tmp_path / "threads.json"
    assert choose_threads(model.name, model.manifest, "ai-edge-litert", file, cores=4, measure=fail) == 1
    assert not file.exists()


@pytest.mark.parametrize("name", ["mlp_adam", "two_inputs", "dropout", "federated"])
def test_real_steps_are_timed_in_a_process_of_their_own(
    name: str, runtime: str, request: pytest.FixtureRequest
) -> None:
    file = request.getfixturevalue(f"{name}_file")
    before = file.read_bytes()
    chosen, seconds = time_threads(file, ModelFile.read(file).manifest, runtime, [1])
    assert (chosen, seconds) == (1, {})
    chosen, _ = time_threads(before, ModelFile.read(file).manifest, runtime, [1, 2])
    assert chosen in (1, 2)
    assert file.read_bytes() == before


def test_what_the_interpreter_refuses_is_one_error(mlp_file: Path, runtime: str) -> None:
    with pytest.raises(RuntimeFailure, match="made-up data"):
        time_threads(b"no model", ModelFile.read(mlp_file).manifest, runtime, [1, 2])


def test_a_model_loaded_with_auto_has_its_own_weights_and_remembers(
    mlp_file: Path, tmp_path: Path, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(threads=2)
    monkeypatch.setattr(threads, "time_threads", asked)
    monkeypatch.setattr(threads, "physical_cores", lambda: 2)
    plain = TrainableModel(mlp_file, runtime=runtime)
    for _ in range(2):
        model = TrainableModel(mlp_file, "auto", runtime, threads_file=tmp_path / "threads.json")
        assert model.num_threads == 2
        np.testing.assert_array_equal(model.weights, plain.weights)
    assert asked.calls == 1
    assert plain.num_threads == 1


@pytest.mark.parametrize("wrong", ["all", 0, True, 1.5, None])
def test_anything_but_a_number_and_auto_is_refused(mlp_file: Path, wrong: Any) -> None:
    with pytest.raises(InvalidSettingError, match="num_threads must be a whole number of at least 1 or 'auto'"):
        TrainableModel(mlp_file, wrong)


def test_the_child_needs_nothing_but_numpy_and_the_interpreter(mlp_file: Path) -> None:
    script = Path(threads.__file__).with_name("threads_child.py")
    code = f"import sys, runpy; sys.argv=['c']; runpy.run_path({str(script)!r}); print('edgefl' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
