from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgefl.errors import InvalidSettingError, MissingDependencyError, RuntimeFailure
from edgefl.targets import TargetRuntime
from edgefl_device_runtime.training import installed_runtimes
from edgefl_device_runtime.training.interpreter import Interpreter
from interpreters import EXPECTED, needs_tflite_runtime


class FakeInterpreter:
    """Stands in for a runtime's class."""

    def __init__(self, num_threads: int, model_path: str | None = None, model_content: bytes | None = None) -> None:
        self.num_threads = num_threads
        self.calls: list[str] = []

    def allocate_tensors(self) -> None:
        self.calls.append("allocate_tensors")

    def get_signature_runner(self, name: str) -> Any:
        self.calls.append(f"get_signature_runner {name}")
        return lambda **inputs: inputs


def install(monkeypatch: pytest.MonkeyPatch, **modules: Any) -> None:
    """Makes exactly these runtimes importable: name to a class, or to the exception that importing raises."""

    def import_module(name: str) -> ModuleType:
        package = name.partition(".")[0]
        given = modules.get(package, ModuleNotFoundError(f"No module named {package!r}", name=package))
        if isinstance(given, Exception):
            raise given
        module = ModuleType(name)
        module.Interpreter = given  # type: ignore[attr-defined]
        return module

    monkeypatch.setattr(importlib, "import_module", import_module)


def test_auto_prefers_the_faster_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ai_edge_litert=FakeInterpreter, tflite_runtime=FakeInterpreter)
    assert Interpreter("m").runtime == "ai-edge-litert"
    assert Interpreter("m", runtime="tflite-runtime").runtime == "tflite-runtime"


def test_auto_takes_the_runtime_that_the_file_was_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ai_edge_litert=FakeInterpreter, tflite_runtime=FakeInterpreter)
    assert Interpreter("m", target="tflite-2.14").runtime == "tflite-runtime"
    assert Interpreter("m", target="litert-2").runtime == "ai-edge-litert"
    assert Interpreter("m", target="a target of a newer edgefl").runtime == "ai-edge-litert"


def test_a_runtime_that_the_file_was_not_made_for_is_refused_with_both_names(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ai_edge_litert=FakeInterpreter, tflite_runtime=FakeInterpreter)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.14.0")
    with pytest.raises(RuntimeFailure, match=r"target litert-2 \(ai-edge-litert .*here is tflite-runtime 2\.14\.0"):
        Interpreter("m", runtime="tflite-runtime", target="litert-2")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.4.0")
    with pytest.raises(RuntimeFailure, match=r"here is ai-edge-litert 1\.4\.0 and tflite-runtime 1\.4\.0"):
        Interpreter("m", target="litert-2")
    assert Interpreter("m", target="all").runtime == "ai-edge-litert"


@pytest.mark.parametrize("has_wheel", [True, False])
def test_another_runtime_is_only_asked_for_where_there_is_a_wheel_of_it(
    monkeypatch: pytest.MonkeyPatch, has_wheel: bool
) -> None:
    install(monkeypatch, ai_edge_litert=FakeInterpreter)
    monkeypatch.setattr(TargetRuntime, "has_wheel", lambda self, python=None: has_wheel)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.3.0")
    with pytest.raises(RuntimeFailure) as refused:
        Interpreter("m", target="tflite-2.14", runtime="ai-edge-litert")
    assert ("Install tflite-runtime, or convert" in str(refused.value)) == has_wheel
    assert ("has no wheel for a Python newer than 3.11" in str(refused.value)) != has_wheel


@pytest.mark.parametrize(
    "failure",
    [
        ModuleNotFoundError("No module named 'ai_edge_litert'", name="ai_edge_litert"),
        ImportError("GLIBC_2.34 not found"),
    ],
)
def test_auto_takes_the_other_runtime_when_the_faster_one_cannot_be_imported(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    install(monkeypatch, ai_edge_litert=failure, tflite_runtime=FakeInterpreter)
    assert Interpreter("m").runtime == "tflite-runtime"


def test_without_any_runtime_the_error_is_the_line_that_installs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    with pytest.raises(MissingDependencyError, match=r"pip install .*edgefl-toolkit\[device\]"):
        Interpreter("m")
    with pytest.raises(MissingDependencyError, match="expected tflite-runtime"):
        Interpreter("m", runtime="tflite-runtime")


def test_a_runtime_that_is_there_but_broken_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tflite_runtime=SystemError("initialization failed\nmore"))
    with pytest.raises(RuntimeFailure, match="tflite-runtime: SystemError: initialization failed"):
        Interpreter("m")
    monkeypatch.setattr(np, "__version__", "2.1.0")
    with pytest.raises(RuntimeFailure, match=r"numpy < 2, this is 2\.1\.0"):
        Interpreter("m")


def test_tensors_are_allocated_before_the_first_signature_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ai_edge_litert=FakeInterpreter)
    interpreter = Interpreter("m", num_threads=2)
    train = interpreter.signature("train")
    assert interpreter.signature("train") is train
    assert train({"x": np.ones(1)}) == {"x": np.ones(1)}
    assert interpreter._interpreter.calls == ["allocate_tensors", "get_signature_runner train"]
    assert interpreter._interpreter.num_threads == 2


@pytest.mark.parametrize("failure", [ValueError("boom"), RuntimeError("boom\nat"), SystemError("boom")])
def test_whatever_the_bindings_raise_becomes_one_error(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise failure

    class Failing(FakeInterpreter):
        def get_signature_runner(self, name: str) -> Any:
            return fail

    install(monkeypatch, ai_edge_litert=Failing)
    with pytest.raises(RuntimeFailure, match=r"failed in the signature 'train': \w+: boom\. "):
        Interpreter("m").signature("train")({})
    install(monkeypatch, ai_edge_litert=fail)
    with pytest.raises(RuntimeFailure, match=r"cannot load the model: \w+: boom"):
        Interpreter("m")


def test_an_index_outside_an_embedding_is_said_to_come_from_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(FakeInterpreter):
        def get_signature_runner(self, name: str) -> Any:
            def fail(**_: Any) -> Any:
                raise RuntimeError("gather index out of boundsNode number 10 (GATHER) failed to invoke.")

            return fail

    install(monkeypatch, ai_edge_litert=Failing)
    with pytest.raises(
        RuntimeFailure, match=r"a number in the data .* an Embedding takes 0 to input_dim - 1"
    ) as caught:
        Interpreter("m").signature("train")({})
    assert "verify" not in str(caught.value)


@needs_tflite_runtime
def test_tflite_runtime_beside_tensorflow_says_what_to_do(mlp_file: Path) -> None:
    code = (
        "import sys, tensorflow; from edgefl_device_runtime.training.interpreter import Interpreter; "
        "Interpreter(sys.argv[1], runtime='tflite-runtime')"
    )
    done = subprocess.run([sys.executable, "-c", code, mlp_file], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "RuntimeFailure" in done.stderr
    assert "does not work in a process that has imported TensorFlow" in done.stderr
    assert "Use another process" in done.stderr


def test_a_model_that_the_runtime_refuses_and_a_signature_that_is_not_there_are_named(
    mlp_file: Path, runtime: str
) -> None:
    with pytest.raises(RuntimeFailure, match=f"{runtime} cannot load the model"):
        Interpreter(b"no model at all", runtime=runtime)
    with pytest.raises(RuntimeFailure, match="no signature 'serve'"):
        Interpreter(mlp_file, runtime=runtime).signature("serve")


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True])
def test_a_wrong_number_of_threads_is_refused(threads: Any) -> None:
    with pytest.raises(InvalidSettingError, match="num_threads"):
        Interpreter("m", num_threads=threads)


def test_an_unknown_runtime_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidSettingError, match="one of auto, ai-edge-litert, tflite-runtime, litert-compiled-model"):
        Interpreter("m", runtime="onnx")


def test_both_runtimes_are_found_where_they_are_installed() -> None:
    assert installed_runtimes() == EXPECTED
