"""What the runtimes write to standard error by themselves is kept off the terminal, and nothing else is."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgefl_device_runtime.training.litert_log import quiet, without_greeting
from interpreters import each_choice

GREETING = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
TRAIN = """
import sys
import numpy as np
from edgefl_device_runtime.training import TrainableModel

model = TrainableModel(sys.argv[1], runtime=sys.argv[2])
rows = np.ones((8, 20), np.float32)
model.train_on_batch(rows, np.ones(8, np.int32))
second = TrainableModel(open(sys.argv[1], "rb").read(), runtime=sys.argv[2])
del model
second.evaluate(rows, np.ones(8, np.int32))
"""


@pytest.mark.parametrize("runtime", each_choice())
def test_nothing_is_written_to_standard_error_from_the_first_model_to_the_end_of_the_process(
    runtime: str, mlp_file: Path
) -> None:
    command = [sys.executable, "-c", TRAIN, mlp_file, runtime]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_lines_of_others_are_passed_on_while_it_is_kept_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    def load() -> None:
        with quiet():
            os.write(
                2, b"INFO: [environment.cc:36] Creating LiteRT environment with options\nWARNING: a disk is full\n"
            )
            os.write(
                2, b"ERROR: [litert/compiler/plugin/compiler_plugin.cc:259]\n\xe2\x94\x94 Could not load\nand INFO\n"
            )
            raise ZeroDivisionError

    with quiet(), pytest.raises(ZeroDivisionError):
        load()
    assert capfd.readouterr().err == "WARNING: a disk is full\nand INFO\n"


def test_an_interpreter_is_held_back_only_until_it_has_greeted(capfd: pytest.CaptureFixture[str]) -> None:
    def load(text: bytes, error: Exception | None = None) -> None:
        with contextlib.suppress(ZeroDivisionError), without_greeting("an interpreter"):
            os.write(2, text)
            if error is not None:
                raise error

    load(GREETING + b"ERROR: no such op\n", ZeroDivisionError())
    assert capfd.readouterr().err == "ERROR: no such op\n"
    load(GREETING)
    assert capfd.readouterr().err == ""
    load(GREETING)
    assert capfd.readouterr().err == GREETING.decode()


@pytest.mark.parametrize("runtime", each_choice())
def test_a_process_without_standard_error_trains(runtime: str, mlp_file: Path) -> None:
    code = f"import os; os.close(2){TRAIN}print('done')"
    command = [sys.executable, "-c", code, mlp_file, runtime]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n")
