"""One face for what may run a model file on a device: two TFLite interpreters, and LiteRT's CompiledModel."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import InvalidSettingError, MissingDependencyError, RuntimeFailure, first_line
from edgefl.parts import install_line
from edgefl.targets import ALL, CHOICES, COMPILED_MODEL, TARGETS, TargetRuntime, distribution_of
from edgefl.targets import RUNTIMES as _DISTRIBUTIONS
from edgefl_device_runtime.training.litert_log import without_greeting
from edgefl_device_runtime.training.signature_lists import LEAKING, without_leak

__all__ = [
    "RUNTIMES",
    "Arrays",
    "FirstSignature",
    "Interpreter",
    "check_installed",
    "choose_runtime",
    "installed_runtimes",
    "runtime_module",
    "runtime_version",
]

RUNTIMES = CHOICES
"""The interpreters that are known. ``auto`` takes the first that there is, but CompiledModel only by its name: nothing
is faster with it, it takes 7 to 14 MB more, and no other thread of Python runs during a step (docs/performance.md)."""

_MODULES = {**_DISTRIBUTIONS, COMPILED_MODEL: "edgefl_device_runtime.training.compiled_model"}

_OUTSIDE = "gather index out of bounds"
"""Said by both interpreters of an index that data brought; one that a model makes up is found when it is converted."""

Arrays = Mapping[str, NDArray[Any]]


def installed_runtimes() -> tuple[str, ...]:
    """Finds the distributions of interpreters that are installed here, the faster one first; none is imported."""
    return tuple(
        runtime
        for runtime, module in _DISTRIBUTIONS.items()
        if importlib.util.find_spec(module.partition(".")[0]) is not None
    )


def check_installed(runtime: str) -> None:
    """Makes sure that there is an interpreter to choose from; none is imported.

    Raises:
        InvalidSettingError: no such runtime.
        MissingDependencyError: no interpreter is installed, or not the wanted one.
    """
    wanted = _wanted(runtime)
    if not {distribution_of(each) for each in wanted} & set(installed_runtimes()):
        raise _missing(wanted)


def runtime_module(runtime: str) -> str:
    """Returns the module of one of `RUNTIMES` that holds its interpreter."""
    return _MODULES[runtime]


def runtime_version(runtime: str) -> str:
    """Returns the version of one of `RUNTIMES` that this process has imported; ``unknown`` if it has none."""
    # importlib.metadata would cost 3 MB of memory.
    package = _package(runtime)
    return str(getattr(sys.modules.get(package), "__version__", "unknown"))


def choose_runtime(runtime: str, target: str) -> str:
    """Returns the interpreter that `Interpreter` would use, which is imported."""
    return _load(runtime, TARGETS.get(target))[0]


class Interpreter:
    """A loaded model file, called by signature.

    All signatures share the model's variables, which start from the values in the file.

    Args:
        source: path of the file, which the interpreter maps into memory, or its bytes, which it keeps.
        num_threads: how many threads a kernel may use.
        runtime: one of `RUNTIMES`, or ``auto`` for the first of them that the target includes and that can be imported.
        target: what the model file was made for, a name of `edgefl.targets`; ``all`` excludes no runtime, nor does a
            name that this edgefl does not know.
        graph_hash: of the model file, where it is known: what one with the same graph was asked before is remembered.

    Attributes:
        runtime: the one of `RUNTIMES` that was chosen.

    Raises:
        InvalidSettingError: no such runtime, or `num_threads` below 1.
        MissingDependencyError: no interpreter is installed, or not the wanted one.
        RuntimeFailure: it cannot be imported here, is not what the model was made for, or refuses the model.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | bytes,
        num_threads: int = 1,
        runtime: str = "auto",
        target: str = ALL,
        graph_hash: str = "",
    ) -> None:
        if isinstance(num_threads, bool) or not isinstance(num_threads, int) or num_threads < 1:
            raise InvalidSettingError(f"num_threads must be a whole number of at least 1, got {num_threads!r}.")
        self.runtime, module = _load(runtime, TARGETS.get(target))
        self._signatures: dict[str, Callable[[Arrays], Arrays]] = {}
        where = {"model_content": source} if isinstance(source, bytes) else {"model_path": os.fspath(source)}
        try:
            make = without_leak(module.Interpreter, graph_hash) if self.runtime == LEAKING else module.Interpreter
            with without_greeting(self.runtime):
                self._interpreter = make(**where, num_threads=num_threads)
                # tflite-runtime applies its fast kernels (XNNPACK) only here, and only before the first signature
                # runner.
                self._interpreter.allocate_tensors()
        except Exception as error:  # the bindings raise whatever C++ did: ValueError, RuntimeError, SystemError, …
            raise RuntimeFailure(
                f"{self.runtime} cannot load the model: {_told_by(error)}.", hint=_loading_hint(self.runtime)
            ) from error
        self._runners = _Runners(self._interpreter)

    def signature(self, name: str) -> Callable[[Arrays], Arrays]:
        """Returns a signature as a function from named tensors to named tensors.

        The inputs are read during the call only; the outputs are new arrays.

        Raises:
            RuntimeFailure: the model has no such signature. The function raises it when the interpreter fails.
        """
        call = self._signatures.get(name)
        if call is None:
            call = self._signatures[name] = _make_call(self.runtime, name, self._runners)
        return call

    def first_signature(self, name: str) -> FirstSignature:
        """The first signature of the file, to be called many times with little that changes.

        Raises:
            RuntimeFailure: the model has no such signature, or it is not the first one.
        """
        runner = self._runners.make(name)
        inputs, outputs = runner.get_input_details(), runner.get_output_details()
        # Names of tensors are dropped by the converter; their numbers say which subgraph they belong to.
        own = [self._interpreter.get_input_details(), self._interpreter.get_output_details()]
        if [_tensors(each) for each in own] != [_tensors(each.values()) for each in (inputs, outputs)]:
            raise RuntimeFailure(
                f"The signature {name!r} is not the first one of the model file.",
                hint="Convert the model again with `edgefl convert`.",
            )
        numbers = [{key: int(each["index"]) for key, each in details.items()} for details in (inputs, outputs)]
        return FirstSignature(name, self.runtime, self._runners, self._interpreter, *numbers)


class _Runners:
    """The signature runners of an interpreter, which are let go of and made again.

    Nothing here refers to what holds it: a model whose last user lets go of it is gone at once, not when the garbage
    collector comes round. Until it did, 24 alternations of two models took 64 MB to 181.
    """

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        self._made: dict[str, Any] = {}

    def make(self, name: str) -> Any:
        """A new runner, which the caller alone holds."""
        try:
            return self._interpreter.get_signature_runner(name)
        except ValueError as error:
            raise RuntimeFailure(f"The model has no signature {name!r}: {_told_by(error)}.") from error

    def get(self, name: str) -> Any:
        """The runner of a signature."""
        runner = self._made.get(name)
        if runner is None:
            runner = self._made[name] = self.make(name)
        return runner

    def release(self) -> None:
        """Lets go of what makes the interpreter refuse to run its first signature by itself."""
        self._made.clear()


def _make_call(runtime: str, name: str, runners: _Runners) -> Callable[[Arrays], Arrays]:
    runners.get(name)

    def call(inputs: Arrays) -> Arrays:
        runner = runners.get(name)
        try:
            outputs: Arrays = runner(**inputs)
        except Exception as error:  # as above: whatever C++ did
            del runner
            # Without its frames, which would hold the runner for as long as somebody holds the error.
            raise _failure(runtime, name, error) from error.with_traceback(None)
        return outputs

    return call


class FirstSignature:
    """The first signature of a model file, through the interpreter's own inputs and outputs.

    An input keeps its value until it is fed again, so that only what changes has to be. Nothing but public methods of
    the two runtimes is used; they refuse while a signature runner exists, so these are let go of and made again.

    Attributes:
        inputs: the number by which an input is fed, by tensor.
        outputs: the number by which an output is fetched, by tensor.
        feed: ``feed(number, array)`` copies an array, which must have the input's shape and type, into the input.
        fetch: ``fetch(number)`` returns an output as a new array.
    """

    def __init__(
        self,
        name: str,
        runtime: str,
        runners: _Runners,
        interpreter: Any,
        inputs: Mapping[str, int],
        outputs: Mapping[str, int],
    ) -> None:
        self.inputs, self.outputs = inputs, outputs
        self.feed: Callable[[int, NDArray[Any]], None] = interpreter.set_tensor
        self.fetch: Callable[[int], NDArray[Any]] = interpreter.get_tensor
        self._name = name
        self._runtime = runtime
        self._release = runners.release
        self._invoke: Callable[[], None] = interpreter.invoke

    def run(self) -> None:
        """Runs the signature on what was fed.

        Raises:
            RuntimeFailure: the interpreter fails.
        """
        self._release()
        try:
            self._invoke()
        except Exception as error:  # as above: whatever C++ did
            raise _failure(self._runtime, self._name, error) from error


def _tensors(details: Any) -> list[tuple[int, tuple[int, ...], Any]]:
    return sorted((int(each["index"]), tuple(map(int, each["shape"])), each["dtype"].__name__) for each in details)


def _failure(runtime: str, signature: str, error: Exception) -> RuntimeFailure:
    told = _told_by(error)
    hint = "`edgefl verify` runs the model on every installed interpreter and says where it fails."
    if _OUTSIDE in told:
        hint = (
            "Most likely a number in the data that counts something, such as words, is too large: an Embedding takes 0 "
            "to input_dim - 1."
        )
    return RuntimeFailure(f"{runtime} failed in the signature {signature!r}: {told}.", hint=hint)


def _wanted(runtime: str) -> tuple[str, ...]:
    """Lists those of `RUNTIMES` that may be chosen."""
    if runtime != "auto" and runtime not in _MODULES:
        raise InvalidSettingError(f"Unknown runtime {runtime!r}, expected one of auto, {', '.join(RUNTIMES)}.")
    return tuple(_DISTRIBUTIONS) if runtime == "auto" else (runtime,)


def _missing(wanted: tuple[str, ...], target: TargetRuntime | None = None) -> MissingDependencyError:
    expected = target or " or ".join(map(distribution_of, wanted))
    return MissingDependencyError(
        f"No TFLite interpreter is installed; expected {expected}.",
        hint=f"Install one with: {install_line('device')}",
    )


def _load(runtime: str, target: TargetRuntime | None) -> tuple[str, Any]:
    """The chosen runtime's name and its module."""
    wanted = _wanted(runtime)
    reasons, excluded, beside_tensorflow = [], [], False
    for name in wanted:
        try:
            # The version is looked up only where it matters: reading it costs time and memory at every start.
            if target is not None and not target.covers(name, version := _version(name)):
                excluded += [f"{name} {version}"] if version else []
                continue
            if name == "tflite-runtime" and "tensorflow" in sys.modules and _version(name):
                # Its library beside TensorFlow's raises an error of C++, or ends the process: it is not even loaded.
                reasons.append(f"{name} does not work in a process that has imported TensorFlow")
                beside_tensorflow = True
                continue
            importlib.import_module(_DISTRIBUTIONS[distribution_of(name)])  # which says whether it is there
            return name, importlib.import_module(_MODULES[name])
        except ModuleNotFoundError as error:
            if error.name != _package(name):
                reasons.append(f"{name}: {_told_by(error)}")
        except Exception as error:  # a wheel for another numpy, Python or C library fails in its own way
            reasons.append(f"{name}: {_told_by(error)}")
    if excluded and not reasons and target is not None:
        raise RuntimeFailure(
            f"The model was made for the target {target}, here is {' and '.join(excluded)}.",
            hint=f"Install {target.runtime}, or convert the model again for the target {ALL} (or this runtime's)."
            if target.has_wheel()
            else f"Convert the model again for the target {ALL} (or this runtime's): {target.absence()}.",
        )
    if not reasons:
        raise _missing(wanted, target)
    hint = "Check that its wheel fits this Python, numpy and C library."
    if beside_tensorflow:
        hint = "Use another process, without TensorFlow, or install ai-edge-litert beside it."
    elif any("tflite-runtime" in reason for reason in reasons) and int(np.__version__.partition(".")[0]) >= 2:
        hint = f"tflite-runtime needs numpy < 2, this is {np.__version__}: {install_line('device')}"
    raise RuntimeFailure(f"No TFLite interpreter can be imported: {'; '.join(reasons)}.", hint=hint)


def _package(runtime: str) -> str:
    """The import package of a runtime's distribution."""
    return _DISTRIBUTIONS[distribution_of(runtime)].partition(".")[0]


def _version(runtime: str) -> str | None:
    """The installed version of a runtime's distribution; None if it is not installed as one."""
    import importlib.metadata

    try:
        return importlib.metadata.version(distribution_of(runtime))
    except importlib.metadata.PackageNotFoundError:
        return None


def _loading_hint(runtime: str) -> str:
    if runtime == "tflite-runtime" and int(np.__version__.partition(".")[0]) >= 2:
        return f"tflite-runtime needs numpy < 2, this is {np.__version__}: {install_line('device')}"
    return "Convert the model again with `edgefl convert`, which runs it on every installed interpreter."


def _told_by(error: BaseException) -> str:
    """Returns type and first line of an error of the bindings, to stand within a sentence."""
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line.rstrip('.')}"
