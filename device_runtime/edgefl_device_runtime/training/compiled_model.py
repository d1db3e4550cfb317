"""LiteRT's CompiledModel with the face of a TFLite interpreter: as much of it as a model file needs.

It runs the kernels that the interpreter of the same distribution runs, to the same bits. docs/performance.md says what
it costs. What the binding does not look at is looked at here: it takes arrays of another type as if they were of the
tensor's, and shorter ones.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import mmap
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.wire.generated import tflite_graph_generated as schema
from edgefl_device_runtime.training.litert_log import quiet, quiet_at_exit

__all__ = ["Interpreter"]

_PRIMARY = "train"
"""The signature that `Interpreter.invoke` runs. CompiledModel orders signatures by name, not as the file does."""


class Interpreter:
    """A loaded model file; all its signatures share the variables.

    Args:
        model_path: of the file.
        model_content: its bytes, if there is no path.
        num_threads: how many a kernel may use.

    Raises:
        OSError: there is no such file.
        RuntimeError: it is no model, or the bytes are none. A damaged file may end the process: whoever opens one has
            checked it.
    """

    def __init__(
        self, model_path: str | None = None, model_content: bytes | None = None, *, num_threads: int = 1
    ) -> None:
        from ai_edge_litert import compiled_model as litert

        make = litert.CompiledModel
        with quiet(), _packed_beside(model_path) as packed:
            cpu = litert.CpuOptions(num_threads=num_threads, xnnpack_weight_cache_path=packed)
            options = litert.Options(cpu_options=cpu)
            if model_path is not None:
                with (
                    Path(model_path).open("rb") as file,
                    mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
                ):
                    self._outputs = _outputs(content)
                self._model = make.from_file(model_path, environment=_environment(), options=options)
            else:
                self._content = model_content or b""  # which the model reads in
                self._model = make.from_buffer(self._content, environment=_environment(), options=options)
                self._outputs = _outputs(self._content)
        self._signatures: dict[str, _Signature] = {}

    def allocate_tensors(self) -> None:
        """Does nothing: a model is ready when it is loaded."""

    def get_signature_runner(self, name: str) -> _Signature:
        """Returns a signature as a function of named tensors.

        Raises:
            ValueError: there is no such signature.
        """
        signature = self._signatures.get(name)
        if signature is None:
            if name not in self._outputs:
                raise ValueError(f"expected one of {', '.join(self._outputs)}, got {name!r}")
            signature = self._signatures[name] = _Signature(self._model, name, self._outputs[name])
        return signature

    def get_input_details(self) -> list[dict[str, Any]]:
        """Describes the inputs of the signature that `invoke` runs."""
        return list(self.get_signature_runner(_PRIMARY).get_input_details().values())

    def get_output_details(self) -> list[dict[str, Any]]:
        """Describes its outputs."""
        return list(self.get_signature_runner(_PRIMARY).get_output_details().values())

    def set_tensor(self, number: int, array: NDArray[Any]) -> None:
        """Copies an array into the input of a number.

        Raises:
            ValueError: it has another shape or type.
        """
        self._signatures[_PRIMARY].inputs[number].write(array)

    def get_tensor(self, number: int) -> NDArray[Any]:
        """Returns the input or output of a number as a new array."""
        return self._signatures[_PRIMARY].tensors[number].read()

    def invoke(self) -> None:
        """Runs the signature on what its inputs hold."""
        self._signatures[_PRIMARY].run()


@contextlib.contextmanager
def _packed_beside(model_path: str | None) -> Iterator[str]:
    """A file beside the model for constants as XNNPACK packs them, which has no name once the model is loaded.

    So all signatures share what is packed, and the system can give it back as it can the model file. Empty for a model
    without a path, and where no file can be made: then each signature holds its own in memory.
    """
    path = ""
    if model_path is not None:
        with contextlib.suppress(OSError):  # on a full or read-only disk it costs memory, as said above
            # A name that the agent clears away too, should the process be killed meanwhile.
            handle, path = tempfile.mkstemp(prefix=".packed-", suffix=".part", dir=Path(model_path).parent)
            os.close(handle)
    try:
        yield path
    finally:
        if path:
            Path(path).unlink(missing_ok=True)


def _outputs(content: bytes | mmap.mmap) -> dict[str, dict[str, int]]:
    """The number of the tensor that each output of each signature is.

    CompiledModel knows one name of a tensor only, and two outputs may be the same one.
    """
    model = schema.Model.GetRootAs(content, 0)
    found = {}
    for definition in map(model.SignatureDefs, range(model.SignatureDefsLength())):
        outputs = map(definition.Outputs, range(definition.OutputsLength()))
        found[definition.SignatureKey().decode()] = {each.Name().decode(): each.TensorIndex() for each in outputs}
    return found


@functools.cache
def _environment() -> Any:
    """The one of this process, which is never let go of: LiteRT would say so."""
    from ai_edge_litert.environment import Environment

    environment = Environment.create()
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(environment))
    return environment


class _Tensor:
    """An input or output, with its buffer.

    Attributes:
        details: as an interpreter tells them.
    """

    def __init__(self, name: str, details: dict[str, Any], buffer: Any) -> None:
        self._name = name
        self._shape, self._dtype = tuple(map(int, details["shape"])), np.dtype(details["dtype"])
        self.details = {**details, "shape": np.array(self._shape, np.int32), "dtype": self._dtype.type}
        self._bytes = math.prod(self._shape) * self._dtype.itemsize
        self._buffer = buffer

    def write(self, array: NDArray[Any]) -> None:
        """Copies an array into it."""
        if array.dtype != self._dtype or array.shape != self._shape:
            expected, got = f"{self._dtype} {self._shape}", f"{array.dtype} {array.shape}"
            raise ValueError(f"the input {self._name!r} expects {expected}, got {got}")
        # As bytes: the binding knows no int64, and copies whatever it is given.
        self._buffer.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8))

    def read(self) -> NDArray[Any]:
        """Returns a copy of it."""
        array: NDArray[Any] = self._buffer.read(self._bytes, np.uint8).view(self._dtype).reshape(self._shape)
        return array


class _Signature:
    """A signature with buffers for all its tensors, which it keeps.

    Attributes:
        inputs: by number.
        tensors: these and the outputs.
    """

    def __init__(self, model: Any, name: str, outputs: Mapping[str, int]) -> None:
        self._model, self._index, self._has_run = model, model.get_signature_index(name), False
        self._given, self._made = model.create_input_buffers(self._index), model.create_output_buffers(self._index)
        known, about = model.get_signature_list()[name], model.get_input_tensor_details(name)
        self._inputs = {key: _Tensor(key, about[key], buffer) for key, buffer in zip(known["inputs"], self._given)}
        self.inputs = {int(tensor.details["index"]): tensor for tensor in self._inputs.values()}
        about = model.get_output_tensor_details(name)
        # Of several buffers for one tensor the last one is written to.
        made = [_Tensor(key, about[key], buffer) for key, buffer in zip(known["outputs"], self._made)]
        self.tensors = self.inputs | {int(tensor.details["index"]): tensor for tensor in made}
        self._outputs = {key: self.tensors[number] for key, number in outputs.items()}

    def get_input_details(self) -> dict[str, dict[str, Any]]:
        """Describes the inputs by name."""
        return {name: tensor.details for name, tensor in self._inputs.items()}

    def get_output_details(self) -> dict[str, dict[str, Any]]:
        """Describes the outputs by name."""
        return {name: tensor.details for name, tensor in self._outputs.items()}

    def run(self) -> None:
        """Runs it on what its inputs hold."""
        if self._has_run:
            self._model.run_by_index(self._index, self._given, self._made)
            return
        with quiet():
            self._model.run_by_index(self._index, self._given, self._made)
        quiet_at_exit()
        self._has_run = True

    def __call__(self, **arrays: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Runs it on named arrays; returns new ones."""
        if arrays.keys() != self._inputs.keys():
            expected, got = (", ".join(names) or "none" for names in (self._inputs, arrays))
            raise ValueError(f"expected the inputs {expected}, got {got}")
        for name, array in arrays.items():
            self._inputs[name].write(array)
        self.run()
        return {name: tensor.read() for name, tensor in self._outputs.items()}
