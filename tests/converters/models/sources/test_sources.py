"""Models in files of an older Keras, and classes of one's own that files refer to."""

from __future__ import annotations

import shutil
import sys
import textwrap
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import edgefl
import edgefl_converters
import keras_models
from edgefl.errors import InvalidSettingError, ModelError
from edgefl_converters.models.loading import load, load_compiled
from edgefl_converters.models.sources.keras_2.compiling import compile_as_configured
from edgefl_converters.models.sources.modules import attribute, known_objects

ARCHIVE = Path(__file__).parents[2] / "keras_2_models.zip"


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """What Keras 2 saved: see make_keras_2_models.py."""
    folder = tmp_path_factory.mktemp("keras_2")
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.parametrize("name", ["saved_model", "model.h5"])
def test_a_model_of_keras_2_computes_what_it_computed_there_and_is_compiled_as_it_was(old, name):
    model = load_compiled(old / name)

    with np.load(old / "answers.npz") as answers:
        np.testing.assert_allclose(model(answers["x"]), answers["y"], atol=1e-6)
    assert type(model.optimizer).__name__ == "Adam"
    # Keras 3 itself reads "Custom>Adam" as an Adam with its default learning rate.
    assert float(model.optimizer.learning_rate) == pytest.approx(0.025)
    assert model.loss.get_config()["from_logits"] is True
    assert np.isfinite(model.train_on_batch(np.zeros((2, 6, 4)), np.zeros(2))[0])


def test_both_ways_of_saving_give_the_same_model(old):
    one, other = load(old / "saved_model"), load(old / "model.h5")
    for variable, same in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(variable, same)


def test_a_saved_model_of_keras_2_is_converted(old, tmp_path):
    result = edgefl.convert(old / "saved_model", tmp_path / "model.tflite", batch_size=4, verify=False)
    assert result.manifest.learning_rate == pytest.approx(0.025)
    assert "body/lstm/lstm_cell/kernel" in result.manifest.layout.names


@pytest.mark.parametrize("compiled", [True, False])
def test_an_hdf5_file_of_keras_3_is_read(tmp_path, compiled):
    model = keras_models.cnn("adam")
    if not compiled:
        model = keras.Sequential.from_config(model.get_config())
    model.save(tmp_path / "model.h5")

    loaded = load(tmp_path / "model.h5")

    for variable, same in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(variable, same)
    assert bool(loaded.compiled) is compiled


def test_short_names_of_losses_are_known_though_keras_fails_on_them(tmp_path):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    model.compile("sgd", "mse", metrics=["mae"])
    model.save(tmp_path / "model.h5")
    assert load_compiled(tmp_path / "model.h5").loss == "mse"


def test_a_learning_rate_that_decays_stays_one():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    old = {"class_name": "SGD", "config": {"name": "SGD", "learning_rate": 0.5, "decay": 0.25, "momentum": 0.0}}

    compile_as_configured(model, {"loss": "mse", "optimizer_config": old}, "2.4.0")

    schedule = model.optimizer._learning_rate
    assert [float(schedule(step)) for step in (0, 4)] == pytest.approx([0.5, 0.25])


def test_weights_without_a_model_are_called_so(tmp_path):
    keras_models.mlp().save_weights(tmp_path / "only.weights.h5")
    with pytest.raises(ModelError, match=r"holds weights only.*load_weights"):
        load(tmp_path / "only.weights.h5")


def test_code_in_an_hdf5_file_is_not_run(tmp_path):
    keras.Sequential([keras.Input((3,)), layers.Lambda(lambda x: x * 2), layers.Dense(1)]).save(tmp_path / "model.h5")
    with pytest.raises(ModelError, match=r"Lambda.*not run from a file"):
        load(tmp_path / "model.h5")


def test_an_exported_saved_model_holds_no_keras_model(tmp_path):
    keras_models.mlp().export(tmp_path / "exported", verbose=False)
    with pytest.raises(ModelError, match=r"model\.export\(\) of Keras 3.*model\.save"):
        load(tmp_path / "exported")


def test_a_subclassed_saved_model_is_refused_with_the_way_out(old):
    with pytest.raises(ModelError, match=r"subclassed model \(Subclassed\).*module:function"):
        load(old / "subclassed")


def test_a_damaged_saved_model_is_refused(old, tmp_path):
    shutil.copytree(old / "saved_model", tmp_path / "no_variables")
    shutil.rmtree(tmp_path / "no_variables" / "variables")
    with pytest.raises(ModelError, match=r"variables of .* cannot be read"):
        load(tmp_path / "no_variables")
    shutil.copytree(old / "saved_model", tmp_path / "damaged")
    (tmp_path / "damaged" / "keras_metadata.pb").write_bytes(b"\xff\xff\xff")
    with pytest.raises(ModelError, match=r"keras_metadata\.pb is damaged"):
        load(tmp_path / "damaged")


def test_variables_of_another_model_are_refused(old, tmp_path):
    shutil.copytree(old / "saved_model", tmp_path / "mixed")
    shutil.rmtree(tmp_path / "mixed" / "variables")
    shutil.copytree(old / "subclassed" / "variables", tmp_path / "mixed" / "variables")
    with pytest.raises(ModelError, match=r"weights of layer .* are not those"):
        load(tmp_path / "mixed")


def test_an_hdf5_file_with_a_class_that_keras_does_not_know_is_refused_by_its_name(tmp_path):
    keras_models.mlp().save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "a") as file:
        file.attrs["model_config"] = file.attrs["model_config"].replace('"Dense"', '"Dence"')
    with pytest.raises(ModelError, match=r"uses Dence.*Did you mean 'Dense'"):
        load(tmp_path / "model.h5")


OWN = """
    import keras

    class Scale(keras.layers.Layer):
        def build(self, shape):
            self.factor = self.add_weight(shape=(shape[-1],), initializer="ones")

        def call(self, x):
            return x * self.factor

    @keras.saving.register_keras_serializable("shop")
    def squash(x):
        return x / (1 + keras.ops.abs(x))

    def quartic(target, prediction):
        return keras.ops.mean((target - prediction) ** 4, axis=-1)

    def model():
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((3,)), Scale(), keras.layers.Dense(2, activation=squash)])
        model.compile("sgd", quartic)
        return model
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder, the current one, with a module of classes and functions, which is not imported."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_layers.py").write_text(textwrap.dedent(OWN))
    load("own_layers:model").save(tmp_path / "model.keras")
    load("own_layers:model").save(tmp_path / "model.h5")
    monkeypatch.delitem(sys.modules, "own_layers")
    before = dict(keras.saving.get_custom_objects())
    keras.saving.get_custom_objects().clear()
    yield tmp_path
    keras.saving.get_custom_objects().clear()
    keras.saving.get_custom_objects().update(before)  # what other tests registered
    sys.modules.pop("own_layers", None)


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_a_module_of_ones_own_makes_its_classes_and_functions_known(own, name):
    with pytest.raises(ModelError, match=r"which Keras does not know.*`custom_objects`"):
        edgefl.load_model(name)

    model = edgefl.load_model(name, custom_objects="own_layers")

    assert [type(layer).__name__ for layer in model.layers] == ["Scale", "Dense"]
    assert getattr(model.loss, "__name__", model.loss) == "quartic"


def test_objects_may_be_given_by_name(own):
    given = {name: attribute(f"own_layers:{name}") for name in ("Scale", "squash", "quartic")}
    assert edgefl.load_model("model.keras", custom_objects=given).layers[0].factor.shape == (3,)


def test_a_file_with_classes_of_ones_own_is_converted_verified_and_exported_without_a_base(own):
    edgefl.convert("model.keras", "model.tflite", batch_size=4, verify=False, custom_objects=["own_layers"])
    explained = edgefl_converters.explain("model.keras", custom_objects="own_layers")
    assert any(name.endswith("(Scale)") for name in explained)
    assert edgefl.verify("model.tflite", "model.keras", custom_objects="own_layers").passed

    edgefl.export("model.tflite", None, "again.keras", custom_objects="own_layers")

    again = edgefl.load_model("again.keras", custom_objects="own_layers")
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(again(x), edgefl.load_model("model.keras", custom_objects="own_layers")(x))


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("own_layer", ModelError, "Did you mean 'own_layers'?"),
        ("nowhere_at_all", ModelError, "There is no Python module 'nowhere_at_all'"),
        ("lanes", ModelError, "Run this in the folder that holds lanes.py"),
        ("nowhere.at.all", ModelError, "Run this in the folder that holds the package nowhere"),
        ("own_layers.py:Scale", InvalidSettingError, "Expected the name of a Python module"),
        ([3], InvalidSettingError, "got 3"),
    ],
)
def test_a_module_that_is_none_is_refused(own, given, error, words):
    with pytest.raises(error) as caught, known_objects(given):
        pass
    assert words in str(caught.value)


def test_what_was_made_known_is_forgotten_afterwards(own):
    with known_objects("own_layers"):
        assert keras.saving.get_registered_object("Scale") is not None
    assert keras.saving.get_registered_object("Scale") is None


def test_each_module_is_named_before_its_code_runs(own):
    named = []
    with known_objects(["own_layers"], named.append):
        assert named == ["own_layers"]


def test_an_archive_of_a_version_that_nobody_knows_is_no_model(tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 6] = 99  # the version that is needed to extract it
    path.write_bytes(data)
    with pytest.raises(ModelError, match="is not a Keras model file"):
        load(path)
