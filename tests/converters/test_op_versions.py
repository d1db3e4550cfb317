"""The table of op versions is what the runtime itself says."""

from __future__ import annotations

import json
import subprocess
import sys

from edgefl_converters.op_versions import OLDEST_RUNTIME_VERSIONS

ASK = """
import json, sys
import flatbuffers
from ai_edge_litert import schema_py_generated as schema
from tflite_runtime.interpreter import Interpreter

def loads(code, version):
    operator = schema.OperatorCodeT()
    operator.builtinCode, operator.deprecatedBuiltinCode, operator.version = code, min(code, 127), version
    graph, model = schema.SubGraphT(), schema.ModelT()
    graph.tensors, graph.inputs, graph.outputs, graph.operators = [], [], [], []
    model.version, model.operatorCodes, model.buffers, model.subgraphs = 3, [operator], [schema.BufferT()], [graph]
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), b"TFL3")
    try:
        Interpreter(model_content=bytes(builder.Output()))
    except Exception:
        return False
    return True

newest = {}
for name, code in vars(schema.BuiltinOperator).items():
    if isinstance(code, int):
        known = [version for version in range(1, 16) if loads(code, version)]
        if known:
            newest[name] = max(known)
print(json.dumps(newest))
"""


def test_the_oldest_runtime_registers_exactly_these_versions():
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    assert json.loads(done.stdout) == OLDEST_RUNTIME_VERSIONS
