"""Layers as Keras's own tests call them: at least 97 in 100 of those that Keras trains convert.

The slow test wants a checkout of Keras at the installed version, whose path is in the variable KERAS_CHECKOUT.
"""

from __future__ import annotations

import functools
import operator
import os
import time
from pathlib import Path
from typing import ClassVar

import keras
import pytest
from keras import layers

from keras_coverage.own_tests import running
from keras_coverage.own_tests.collecting import layer_cases, require_checkout
from keras_coverage.own_tests.running import own_tests
from keras_coverage.own_tests.writing import with_own_tests, written_own_tests
from keras_coverage.pairwise.trials import accepted_by_keras
from keras_coverage.watched_process import NoAnswerError, WatchedProcess

DOCUMENT = Path(__file__).parents[2] / "docs" / "coverage.md"
CHECKOUT = os.environ.get("KERAS_CHECKOUT", "")
TEST = """
from keras import layers
from keras.src import testing


class Cell(layers.SimpleRNNCell):
    pass


class LayerTest(testing.TestCase):
    def test_basics(self):
        self.run_layer_test(layers.Dense, {"units": 2}, input_shape=(4, 3), expected_output_shape=(4, 2))
        self.run_layer_test(layers.RNN, {"cell": Cell(2)}, input_shape=(4, 3, 2))
        self.run_layer_test(layers.Embedding, {"input_dim": 5, "output_dim": 2}, (4, 3), "int32")
        self.run_layer_test(layers.ReLU, {"max_value": -1.0}, input_shape=(4, 3))

    def test_something_else(self):
        raise AssertionError("is not run")
"""


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "keras" / "src" / "layers"
    folder.mkdir(parents=True)
    (tmp_path / "conftest.py").write_text("")
    (tmp_path / "keras" / "src" / "version.py").write_text(f'__version__ = "{keras.__version__}"\n')
    (folder / "layer_test.py").write_text(TEST)
    return tmp_path


def test_calls_are_read_from_a_checkout_and_keras_says_which_it_trains(checkout):
    require_checkout(checkout)
    cases = list(layer_cases(checkout))
    assert [case.api for case in cases] == [layers.Dense, layers.RNN, layers.Embedding, layers.ReLU]
    assert [case.key.split("::")[1:] for case in cases[:2]] == [
        ["LayerTest", f"test_basics {index}"] for index in (0, 1)
    ]
    assert [accepted_by_keras(case) for case in cases] == [True, True, True, False]


class Scripted:
    """Stands for a process: Keras trains all but the ReLU, in which it dies; RNN hangs, and Embedding is wrong."""

    asked: ClassVar[list[tuple[str, list[str]]]] = []

    def __init__(self, prepare, given, seconds):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def ask(self, question):
        what, keys = question
        self.asked.append((what, [key.split()[-1] for key in keys]))
        if any(key.endswith("3" if what == "trains" else "1") for key in keys):
            raise NoAnswerError("takes too long")
        return what == "trains" or ("differs" if any(key.endswith("2") for key in keys) else "", 6.0)


def test_what_is_wrong_in_one_model_is_tried_case_by_case_and_never_again(checkout, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "WatchedProcess", Scripted)
    monkeypatch.setattr(Scripted, "asked", [])

    found = list(own_tests(checkout, tmp_path / "record"))

    assert [case.complaint for case in found] == ["", "NoAnswerError: takes too long", "differs"]
    assert [keys for what, keys in Scripted.asked if what == "converts"] == [["0", "1", "2"], ["0"], ["1"], ["2"]]
    Scripted.asked.clear()
    assert list(own_tests(checkout, tmp_path / "record")) == found
    assert Scripted.asked == []


def test_a_process_that_ends_or_hangs_costs_one_answer():
    with WatchedProcess(operator.methodcaller, ("__call__",), seconds=100) as process:
        first = process.ask(os.getpid)
        assert process.ask(os.getpid) == first
        with pytest.raises(NoAnswerError, match="exit code 3"):
            process.ask(functools.partial(os._exit, 3))
        with pytest.raises(NoAnswerError, match="SIGABRT"):
            process.ask(os.abort)
        assert process.ask(os.getpid) not in (first, os.getpid())
    with WatchedProcess(operator.methodcaller, ("__call__",), seconds=0.5) as process, pytest.raises(NoAnswerError):
        process.ask(functools.partial(time.sleep, 600))


def test_what_is_no_checkout_of_this_version_is_refused(checkout, tmp_path_factory):
    with pytest.raises(ValueError, match="no checkout of Keras"):
        require_checkout(tmp_path_factory.mktemp("empty"))
    (checkout / "keras" / "src" / "version.py").write_text('__version__ = "2.15.0"\n')
    with pytest.raises(ValueError, match=f"Keras 2.15.0, but {keras.__version__} is installed"):
        require_checkout(checkout)


def test_the_document_says_that_at_least_97_in_100_convert():
    converted, cases = written_own_tests(DOCUMENT.read_text())
    if not cases:
        pytest.skip("docs/coverage.md has no part about Keras's own tests yet")
    assert converted >= 0.97 * cases


@pytest.mark.slow
@pytest.mark.skipif(not CHECKOUT, reason="KERAS_CHECKOUT names no checkout of Keras")
def test_layers_of_keras_own_tests_convert(tmp_path):
    require_checkout(Path(CHECKOUT))
    document = DOCUMENT.read_text()
    found = list(own_tests(Path(CHECKOUT), tmp_path / "record"))
    assert with_own_tests(document, found) == document
