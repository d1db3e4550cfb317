"""Each table of op versions is what its runtime itself says."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edgefl.targets import RUNTIMES
from edgefl_converters.targets import op_tables
from interpreters import each_interpreter

ASK = """
import importlib, json, sys
import flatbuffers
from ai_edge_litert import schema_py_generated as schema
Interpreter = importlib.import_module(sys.argv[1]).Interpreter

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
    if not name.startswith("_"):  # Python 3.13 notes the first line of a class
        known = [version for version in range(1, 20) if loads(code, version)]
        if known:
            newest[name] = max(known)
print(json.dumps(newest))
"""


@pytest.mark.parametrize("runtime", each_interpreter())
def test_the_runtime_registers_exactly_the_versions_of_its_table(runtime):
    done = subprocess.run([sys.executable, "-c", ASK, RUNTIMES[runtime]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    (table,) = (each for each in op_tables("all") if each.target.runtime == runtime)

    assert json.loads(done.stdout) == table.versions
    assert runtime in table.source


def test_a_later_runtime_knows_all_that_an_earlier_one_knows():
    oldest, newest = op_tables("all")

    assert not [op for op, version in oldest.versions.items() if newest.refuses(op, version)]
