"""Measures what one interpreter does with a model file, in a process of its own without TensorFlow.

Run by path, with numpy and one interpreter only: ``python child.py MODULE MODEL``, where MODULE holds the class
``Interpreter``. Standard input is JSON, for each signature a list of ``[tensor, shape, dtype]``; so is standard output.
Exit code 3: the runtime itself does not work.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import sys
from typing import Any

RUNTIME_UNUSABLE = 3
_FIELDS = (
    *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
    *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
)


class _Mallinfo(ctypes.Structure):
    """The structure that ``mallinfo2`` of the GNU C library returns, from version 2.33 on."""

    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS]


def main(module: str, model_path: str) -> int:
    """Measures; returns the exit code."""
    try:
        interpreter = importlib.import_module(module).Interpreter
        import numpy as np
    except Exception as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return RUNTIME_UNUSABLE
    inputs = {
        signature: {tensor: np.zeros(shape, dtype) for tensor, shape, dtype in specs}
        for signature, specs in json.load(sys.stdin).items()
    }
    result: dict[str, Any] = {"delegation": _delegation(interpreter, model_path), "heap": None}
    if hasattr(ctypes.CDLL(None), "mallinfo2"):
        # The first interpreter of a process also makes what all of them share.
        for signature, given in inputs.items():
            _heap(interpreter, model_path, signature, given)
        result["heap"] = {
            signature: _heap(interpreter, model_path, signature, given) for signature, given in inputs.items()
        }
    json.dump(result, sys.stdout)
    return 0


def _heap(interpreter: Any, model_path: str, signature: str, inputs: dict[str, Any]) -> dict[str, int]:
    """Bytes of the heap that each stage of using a signature adds and keeps."""
    start = _used()
    made = interpreter(model_path=model_path, num_threads=1)
    loaded = _used()
    made.allocate_tensors()
    allocated = _used()
    runner = made.get_signature_runner(signature)
    runner(**inputs)  # its outputs are copies, which nobody keeps
    return {"loaded": loaded - start, "allocated": allocated - loaded, "called": _used() - allocated}


def _used() -> int:
    """Bytes in use that were taken from the C library, in its heaps and in mappings of their own."""
    gc.collect()
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = _Mallinfo
    info = mallinfo()
    return int(info.uordblks + info.hblkhd)


def _delegation(interpreter: Any, model_path: str) -> dict[str, int] | None:
    """Counts the ops of the first subgraph that a delegate takes, and the partitions; None if it does not tell."""
    made = interpreter(model_path=model_path, num_threads=1)
    made.allocate_tensors()
    if not hasattr(made, "_get_ops_details"):
        return None
    details = made._get_ops_details()
    ops = [each for each in details if each["op_name"] != "DELEGATE"]
    partitions = [each for each in details if each["op_name"] == "DELEGATE"]
    makers = {int(tensor): each for each in ops for tensor in each["outputs"]}
    handed_out = {int(tensor) for partition in partitions for tensor in partition["outputs"]}
    updates = [
        each for each in ops if each["op_name"] == "ASSIGN_VARIABLE" and not handed_out & set(map(int, each["inputs"]))
    ]
    asked = {int(each["index"]) for each in made.get_input_details()}
    taken: set[int] = set()
    for partition in partitions:
        given = {int(tensor) for tensor in partition["inputs"]}
        # The replaced ops stay in the list. A partition holds what leads from its inputs to its outputs …
        taken |= _between(makers, given, partition["outputs"])[0]
        for update in updates:
            # … and updates of variables, which have no output, where all that leads to them comes from its inputs.
            found, reached = _between(makers, given, update["inputs"])
            if reached & given and not reached & asked - given:
                taken |= found | {update["index"]}
    return {"ops": len(ops), "taken": len(taken), "partitions": len(partitions)}


def _between(makers: dict[int, Any], given: set[int], wanted: Any) -> tuple[set[int], set[int]]:
    """The ops that lead from given tensors to wanted ones, and the tensors where that begins."""
    found: set[int] = set()
    begins: set[int] = set()
    waiting = [int(tensor) for tensor in wanted]
    while waiting:
        tensor = waiting.pop()
        maker = makers.get(tensor)
        if tensor in given or maker is None:
            begins.add(tensor)
        elif maker["index"] not in found:
            found.add(maker["index"])
            waiting += [int(each) for each in maker["inputs"]]
    return found, begins


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file: its modules must not be found under other packages' names
    sys.exit(main(*sys.argv[1:]))
