"""A pass that lies in the test's own files works through ``convert``, and no module was touched for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from edgefl.inspecting.graph import read_graph
from edgefl.model_file import ModelFile

HERE = Path(__file__).parent
TOYS = {
    "edgefl.passes": {
        "swap_addends": "toy_pass:SWAP_ADDENDS",
        "broken": "no_such_module:BROKEN",
        "scheduling": "toy_pass:SWAP_ADDENDS",
    }
}
SECONDS = 300


def converted(folder):
    script = HERE / "converting_in_a_child.py"
    return subprocess.run(
        [sys.executable, script, folder], capture_output=True, text=True, timeout=SECONDS, check=False
    )


def addends(path):
    """The inputs of each ADD, and all else of every op, in the order in which they run."""
    graph = read_graph(ModelFile.read(path))
    every = [each for operators in graph.operators for each in operators]
    return [each.inputs for each in every if each.name == "ADD"], [
        (each.name, each.outputs, None if each.name == "ADD" else each.inputs) for each in every
    ]


def test_a_pass_from_outside_rewrites_verified_files_and_is_switched_off_by_its_name(install, tmp_path):
    install("toys", TOYS, HERE / "toy_pass.py")
    done = converted(tmp_path)
    assert done.returncode == 0, done.stderr

    for name in ("with", "without"):
        ModelFile.read(tmp_path / f"{name}.tflite").verify()
        report = json.loads((tmp_path / f"{name}.tflite.report.json").read_text())
        ran = [each for each in report["verification"]["runtimes"] if each["ran"]]
        assert ran
        assert all(each["comparisons"] for each in ran)
    swapped, others = addends(tmp_path / "with.tflite")
    plain, same_others = addends(tmp_path / "without.tflite")
    assert swapped
    assert swapped == [inputs[::-1] for inputs in plain] != plain
    assert others == same_others

    # What does not fit is named once, and the rest works.
    assert done.stderr.count("The pass 'broken' (no_such_module:BROKEN) of toys is left out") == 1
    assert done.stderr.count("The pass 'scheduling' (toy_pass:SWAP_ADDENDS) of toys is left out") == 1


def test_a_name_that_is_none_is_answered_with_the_pass_from_outside(install):
    install("toys", TOYS, HERE / "toy_pass.py")
    program = (
        "from edgefl_converters.flatbuffer.pipeline import chosen_passes\n"
        "from edgefl.errors import InvalidSettingError\n"
        "try:\n    chosen_passes(['swap_adends'])\nexcept InvalidSettingError as error:\n    print(error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.stdout.strip() == "Did you mean swap_addends?", done.stderr
