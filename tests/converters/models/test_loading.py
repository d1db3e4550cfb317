"""What users may name as a model, and what each mistake is answered with."""

from __future__ import annotations

import sys
import textwrap

import keras
import pytest
import tensorflow as tf
from keras import layers

import keras_models
from edgefl.errors import InvalidSettingError, ModelError
from edgefl_converters.models.loading import compile_model, load, load_compiled

MODULE = """
    import keras

    NUMBER = 3

    def model():
        return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])

    def number():
        return 1

    def broken():
        return 1 / 0

    def with_arguments(size):
        return size
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a module of models in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_models", raising=False)
    (tmp_path / "my_models.py").write_text(textwrap.dedent(MODULE))
    return tmp_path


def bare():
    return keras.Sequential([keras.Input((3,)), layers.Dense(2, activation="softmax")])


def test_a_model_object_is_taken_as_it_is():
    model = keras_models.mlp()
    assert load_compiled(model) is model


def test_a_keras_file_is_loaded_with_what_it_was_compiled_with(tmp_path):
    keras_models.mlp("adam").save(tmp_path / "model.keras")

    model = load_compiled(tmp_path / "model.keras")

    assert type(model.optimizer).__name__ == "Adam"
    assert model.loss == "sparse_categorical_crossentropy"


def test_a_function_of_a_module_in_the_current_folder_is_called(folder):
    before = list(sys.path)
    assert load("my_models:model").output_shape == (None, 2)
    assert sys.path == before


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere.keras", "There is no file nowhere.keras"),
        ("my_models:number", "returned int, expected a Keras model"),
        ("my_models:NUMBER", "is not a function but int"),
        ("my_models:broken", "ZeroDivisionError: division by zero (my_models.py, line 13)"),
        ("my_models:with_arguments", "It is called without arguments"),
        ("my_models:modl", "Did you mean my_models:model?"),
        ("my_models:kers", "has no 'kers'. Give"),
        ("no_such_module:model", "holds no_such_module.py"),
        (3, "Expected a Keras model, got builtins.int"),
    ],
)
def test_a_source_that_is_no_model_is_refused_in_one_line(folder, source, words):
    with pytest.raises(ModelError) as caught:
        load(source)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.txt", b"hello", "is not a Keras model file"),
        ("cut.keras", b"PK\x03\x04 and no more", "is not a Keras model file"),
        ("cut.h5", b"\x89HDF\r\n\x1a\n....", "cannot be read as an HDF5 file"),
        ("done.tflite", b"\x1c\x00\x00\x00TFL3....", "is a TFLite file already"),
    ],
)
def test_a_file_of_another_kind_is_called_by_its_name(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=words):
        load(tmp_path / name)


def test_folders_without_a_keras_model_are_refused_with_the_way_to_a_keras_file(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "saved"))
    with pytest.raises(ModelError, match=r"SavedModel without a Keras model.*model\.save"):
        load(tmp_path / "saved")
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ModelError, match=r"saved_model\.pb is damaged.*Copy the folder again"):
        load(tmp_path / "saved")
    with pytest.raises(ModelError, match=r"is a folder.*model\.save"):
        load(tmp_path)


def test_code_in_a_file_is_not_run(tmp_path):
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((3,)), layers.Lambda(lambda x: x * 2), layers.Dense(1)]).save(path)
    with pytest.raises(ModelError, match=r"Lambda.*not run from a file.*module:function"):
        load(path)


def test_a_class_that_only_its_source_knows_is_named(tmp_path):
    class Mine(layers.Dense):
        pass

    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((3,)), Mine(2)]).save(path)
    with pytest.raises(ModelError, match=r"uses Mine, which Keras does not know.*module:function"):
        load(path)


def test_what_is_given_replaces_what_was_compiled_and_the_rest_stays():
    model = keras_models.mlp("adam")

    compile_model(model, loss="mse")

    assert (model.loss, type(model.optimizer).__name__) == ("mse", "Adam")
    assert model._compile_metrics._user_metrics == ["accuracy"]


def test_a_model_that_is_not_compiled_needs_both_loss_and_optimizer():
    with pytest.raises(ModelError, match=r"not compiled.*`loss` and `optimizer`"):
        compile_model(bare())
    with pytest.raises(ModelError, match="no optimizer was given"):
        compile_model(bare(), loss="mse")
    assert compile_model(bare(), loss="mse", optimizer="sgd").compiled


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ({"loss": "sparse_categorical_crossentropi", "optimizer": "sgd"}, "'sparse_categorical_crossentropy'"),
        ({"loss": "mse", "optimizer": "adm"}, "'adam'"),
        ({"loss": "mse", "optimizer": "sgd", "metrics": ["acuracy"]}, "'accuracy'"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_one(given, nearest):
    with pytest.raises(InvalidSettingError, match=f"Did you mean {nearest}"):
        compile_model(bare(), **given)


def test_a_name_like_no_other_is_answered_with_the_list():
    with pytest.raises(InvalidSettingError, match=r"Keras knows: .*huber"):
        compile_model(bare(), loss="zzzqqq", optimizer="sgd")
