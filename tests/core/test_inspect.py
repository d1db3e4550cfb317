"""``edgefl inspect`` as a user meets it: with interpreters, without any, and never with TensorFlow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgefl.cli.inspect import describe
from edgefl.cli.inspect_text import as_text
from edgefl.model_file import ModelFile
from interpreters import EXPECTED

RUN = """
import sys
sys.modules.update(dict.fromkeys({hidden}))
from edgefl.cli.main import main
main(sys.argv[1:])
"""
INTERPRETERS = ["ai_edge_litert", "tflite_runtime"]


def inspect(*arguments: Any, hidden: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    program = RUN.format(hidden=["tensorflow", "keras", *hidden])
    command = [sys.executable, "-c", program, "inspect", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_whole_result_is_one_json_document(cnn_file: Path) -> None:
    done = inspect(cnn_file, "--format", "json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["target"] == "all"
    assert sum(result["sizes"].values()) == result["bytes"] == cnn_file.stat().st_size
    assert result["bytes_that_travel"] == 4 * (result["weight_elements"] + result["statistic_elements"])
    assert result["local_elements"] == 0
    assert result["signatures"]["train"]["ops"]["MAX_POOL_2D"] == 1
    assert result["signatures"]["train"]["flops"]["total"] > result["signatures"]["infer"]["flops"]["total"] > 0
    assert [each["runtime"] for each in result["measured"]] == list(EXPECTED)
    for each in result["measured"]:
        assert each["arenas"].keys() == result["signatures"].keys()
        assert 0 < each["delegation"]["taken"] < each["delegation"]["ops"]
        assert each["delegation"]["ops"] == sum(result["signatures"]["train"]["ops"].values())


def test_the_text_of_a_small_model_fits_on_one_screen(mlp_file: Path) -> None:
    done = inspect(mlp_file)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) <= 24
    for piece in (
        "made for target all",
        "; targets: ",
        "weights 1,684",
        "travel, 1,684 bytes as float32",
        "one step: ",
        "  ".join(f"arena {name}" for name in EXPECTED),
        "XNNPACK takes ",
    ):
        assert piece in done.stdout


def test_the_text_says_how_it_was_chosen_what_is_trained_and_what_the_file_supports(mlp_file: Path) -> None:
    plain = {**describe(ModelFile.read(mlp_file)), "evidence": None, "measured": None}
    lora = {"rank": 4, "alpha": None, "targets": ["dense", "query"]}
    chosen = {**plain, "fine_tuning": {"last_layers": 2, "lora": lora}, "algorithms": ["fedprox", "feddyn"]}
    assert "made with last_layers 2, lora (rank 4, targets dense query)" in as_text("m.tflite", chosen)
    assert "supports fedprox, feddyn" in as_text("m.tflite", chosen)
    assert "made with" not in as_text("m.tflite", plain)


def test_without_an_interpreter_it_shows_the_rest_and_how_to_install_one(mlp_file: Path) -> None:
    done = inspect(mlp_file, hidden=tuple(INTERPRETERS))
    assert done.returncode == 0, done.stderr
    assert "one step: " in done.stdout
    assert "needs a TFLite interpreter, and none is installed" in done.stdout
    assert 'edgefl-toolkit[device]"' in done.stdout
    assert "arena " not in done.stdout


def test_measuring_without_an_interpreter_is_an_error_when_it_was_asked_for(mlp_file: Path) -> None:
    done = inspect(mlp_file, "--measure", hidden=tuple(INTERPRETERS))
    assert done.returncode == 3
    assert 'edgefl-toolkit[device]"' in done.stderr
    assert done.stdout == ""


def test_nothing_is_measured_where_that_was_not_wanted(mlp_file: Path) -> None:
    done = inspect(mlp_file, "--no-measure", "--format", "json", hidden=("edgefl_device_runtime",))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["measured"] is None
