"""What people call their model: a file as it is; everything else is converted once, for what the strategy needs."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

from edgefl.algorithms import supported
from edgefl.errors import InvalidSettingError, ModelError, StorageError
from edgefl.model_file import ModelFile
from edgefl_simulation import model_sources
from edgefl_simulation.model_sources import Wanted, model_file


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a module that makes a model, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.py").write_text(
        textwrap.dedent(
            """
            import keras

            def build():
                keras.utils.set_random_seed(1)
                model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "softmax")])
                model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
                return model

            def words():
                return "no model"
            """
        )
    )
    return tmp_path


def test_a_model_file_is_taken_as_it_is(plain_sgd_file):
    data = plain_sgd_file.read_bytes()
    assert model_file(plain_sgd_file, Wanted("scaffold")) == model_file(data, Wanted()) == data


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"read .*none\.tflite"):
        model_file(tmp_path / "none.tflite", Wanted())
    with pytest.raises(InvalidSettingError, match="no such file"):
        model_file(str(tmp_path / "none.keras"), Wanted())


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("small", "Of a module, name the function that makes the model: small:build."),
        ("models.small", "name the function that makes the model: models.small:build."),
        ("small.py", "Name the function in it that makes the model: small:build."),
        ("run", "Give its run/model.tflite."),
        ("no model", None),
    ],
)
def test_what_is_no_model_is_refused_with_what_was_meant(here, given, hint):
    (here / "run").mkdir()
    for name in ("settings.json", "model.tflite"):
        (here / "run" / name).write_text("")
    with pytest.raises(InvalidSettingError) as caught:
        model_file(given, Wanted())
    assert (caught.value.hint or "None").endswith(str(hint))


def test_a_function_s_model_is_converted_for_the_strategy_in_another_process_and_only_once(here):
    told = []
    data = model_file("small:build", Wanted("scaffold", 4), told.append)
    manifest = ModelFile(data).manifest
    assert manifest.batch_size == 4
    assert supported(manifest) == ("scaffold",)
    assert "tensorflow" not in sys.modules
    line = "Making small:build; it is converted unless it was before."
    assert told == [line]
    (kept,) = (here / "cache" / "edgefl" / "models").glob("*.tflite")
    before = kept.stat().st_mtime_ns
    assert model_file("small:build", Wanted("scaffold", 4), told.append) == data
    assert told == [line, line]  # true of both times
    assert kept.stat().st_mtime_ns == before


def test_what_cannot_be_converted_is_refused_as_by_convert(here):
    with pytest.raises(ModelError):
        model_file("small:words", Wanted())
    assert not list((here / "cache").rglob("*.tflite"))


@pytest.mark.slow
def test_a_keras_file_is_not_even_loaded_the_second_time_and_a_model_here_gives_the_same_bytes(here, monkeypatch):
    script = """
        import json, sys, small, edgefl
        from edgefl_simulation.model_sources import Wanted, model_file
        from edgefl.hashing import sha256
        model = small.build()
        model.save("small.keras")
        print(json.dumps([sha256(model_file(model, Wanted("", 4))), sha256(model_file("small.keras", Wanted("", 4)))]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True, cwd=here
    )
    assert len(set(json.loads(done.stdout.splitlines()[-1]))) == 1
    monkeypatch.setattr(model_sources, "run_child", lambda *arguments, **more: pytest.fail("it was converted again"))
    assert ModelFile(model_file(here / "small.keras", Wanted("", 4))).manifest.batch_size == 4
