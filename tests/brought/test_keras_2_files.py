"""Files of Keras 2 as people have them: they compute what they computed there. See make_keras_2_files.py."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.keras.protobuf.saved_metadata_pb2 import SavedMetadata

import edgefl
from edgefl.errors import ModelError
from edgefl_converters.models.loading import load
from edgefl_converters.models.sources.keras_2.tensorflow_operation import TensorFlowOperation, function_named

ARCHIVE = Path(__file__).with_name("keras_2_files.zip")
FILES = sorted(
    {
        name.split("/")[0]
        for name in zipfile.ZipFile(ARCHIVE).namelist()
        if not name.endswith(".npz") and not name.startswith("in_half_precision")
    }
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keras_2_files")
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(folder)
    return folder


def _answers(files, name):
    with np.load(files / f"{name}.npz") as saved:
        inputs = [saved[f"x{index}"] for index in range(sum(key.startswith("x") for key in saved))]
        outputs = [saved[f"y{index}"] for index in range(sum(key.startswith("y") for key in saved))]
        return inputs, outputs, int(saved["trained"])


def _predicted(model, inputs):
    given = inputs if len(inputs) > 1 else inputs[0]
    if len(inputs) > 1 and isinstance(model.input, dict):
        given = dict(zip(model.input, inputs, strict=True))
    return keras.tree.flatten(model(given))


@pytest.mark.parametrize("name", FILES)
def test_a_file_computes_what_it_computed_in_keras_2_and_trains_as_much(files, name):
    inputs, outputs, trained = _answers(files, name.partition(".")[0])

    model = load(files / name)

    found = _predicted(model, inputs)
    names = sorted(model.output) if isinstance(model, keras.Model) and name.startswith("operations") else outputs
    assert len(found) == len(outputs)
    for what, value, expected in zip(names, found, outputs, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5, err_msg=str(what)[:60])
    assert sum(int(np.prod(each.shape)) for each in model.trainable_weights) == trained


def _statistics(model):
    layers = model._flatten_layers()
    return [np.array(each.moving_mean) for each in layers if isinstance(each, keras.layers.BatchNormalization)]


@pytest.mark.parametrize("form", [".h5", ".keras", ""])
def test_a_base_that_is_called_without_training_stays_so_though_it_is_trained(files, tmp_path, form):
    model = load(files / f"fine_tuned{form}")
    (x,), _, _ = _answers(files, "fine_tuned")
    before, predicted = _statistics(model), np.array(model(x))
    assert before

    np.testing.assert_allclose(model(x, training=True), predicted, atol=1e-6)
    model.train_on_batch(x, np.ones((len(x), 1)))

    for mean, same in zip(_statistics(model), before, strict=True):
        np.testing.assert_array_equal(mean, same)
    model.save(tmp_path / "again.keras")
    again = edgefl.load_model(tmp_path / "again.keras")
    np.testing.assert_allclose(again(x, training=True), model(x), atol=1e-6)


def test_it_is_compiled_as_it_was(files):
    for form in (".h5", ".keras", ""):
        model = load(files / f"named_ports{form}")
        assert float(model.optimizer.momentum) == pytest.approx(0.9)
        assert [float(model.optimizer._learning_rate(step)) for step in (0, 10)] == pytest.approx([0.1, 0.09])
        x = {"a": np.ones((2, 4)), "b": np.ones((2, 3))}
        # Keras 2 wrote categorical_accuracy for it before it was trained.
        assert "accuracy" in str(model._compile_metrics._user_metrics)
        assert "categorical" not in str(model._compile_metrics._user_metrics)
        before = float(keras.ops.sum(model.get_layer("kind").kernel))
        model.train_on_batch(x, {"size": np.ones((2, 1)), "kind": np.ones(2)})
        assert float(keras.ops.sum(model.get_layer("kind").kernel)) != before


def test_a_transfer_learning_file_is_converted_verified_and_exported(files, tmp_path):
    result = edgefl.convert(
        files / "densenet_preprocessing.h5", tmp_path / "m.tflite", loss="mse", optimizer="sgd", batch_size=2
    )
    assert result.report["verification"] is not None

    edgefl.export(tmp_path / "m.tflite", None, tmp_path / "again.keras")

    (x,), (y,), _ = _answers(files, "densenet_preprocessing")
    # Operations of Keras took the place of TensorFlow's, so Keras reads the file without edgefl.
    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "again.keras")(x), y, rtol=1e-5, atol=1e-5)


def test_what_keras_has_no_operation_for_is_kept_through_a_file(files, tmp_path):
    model = load(files / "operations.h5")
    assert any(isinstance(layer, TensorFlowOperation) for layer in model.layers)
    model.save(tmp_path / "again.keras")

    inputs, outputs, _ = _answers(files, "operations")

    for value, expected in zip(_predicted(edgefl.load_model(tmp_path / "again.keras"), inputs), outputs, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["io.write_file", "py_function", "raw_ops.WriteFile", "keras.backend.set_floatx", "saved_model.load", "nothing"],
)
def test_a_function_that_does_more_than_compute_is_not_called_from_a_file(name):
    with pytest.raises(ModelError, match=r"module:function"):
        function_named(name)


def _edited(files, tmp_path, name, change):
    with h5py.File(tmp_path / name, "w") as copy, h5py.File(files / name) as file:
        for key in file:
            file.copy(key, copy)
        for key, value in file.attrs.items():
            copy.attrs[key] = value
        config = json.loads(copy.attrs["model_config"])
        change(config["config"]["layers"])
        copy.attrs["model_config"] = json.dumps(config)
    return tmp_path / name


def _class_of(layers, old, new):
    next(layer for layer in layers if layer["class_name"] == old)["class_name"] = new


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Activation", "LocallyConnected1D", r"LocallyConnected1D, which Keras 3 does not have.*Conv1D"),
        ("Activation", "AddLoss", r"AddLoss, which Keras 3 does not have.*calls self\.add_loss"),
        ("Activation", "TensorFlowOpLayer", r"TensorFlowOpLayer, which Keras 3 does not have.*TensorFlow before 2\.4"),
        ("Activation", "Actuation", r"uses Actuation.*Did you mean 'Activation'"),
    ],
)
def test_a_layer_that_is_not_there_is_refused_by_its_name(files, tmp_path, old, new, words):
    file = _edited(files, tmp_path, "operations.h5", lambda layers: _class_of(layers, old, new))
    with pytest.raises(ModelError, match=words):
        load(file)


@pytest.mark.parametrize("gone", ["AddLoss", "TensorFlowOpLayer"])
def test_the_way_out_of_a_layer_that_is_not_there_leads_somewhere(files, tmp_path, gone):
    """A layer without weights does not keep Keras 3 from giving those of a file to a model that was built."""
    (x,), (y,), _ = _answers(files, "densenet_preprocessing")
    built = load(files / "densenet_preprocessing.h5")
    for variable in built.variables:
        variable.assign(keras.ops.zeros_like(variable))
    name = f"{gone}.h5"

    def insert(layers):
        layers.append({"class_name": gone, "name": "gone", "config": {"name": "gone"}, "inbound_nodes": []})

    edited = _edited(files, tmp_path, "densenet_preprocessing.h5", insert).rename(tmp_path / name)
    with pytest.raises(ModelError, match=rf"{gone}.*load_weights with this file"):
        load(edited)
    built.load_weights(edited)
    np.testing.assert_allclose(built(x), y, rtol=1e-5, atol=1e-5)


def test_a_folder_from_before_tensorflow_2_5_has_its_configuration_in_the_graph(files, tmp_path):
    """As tf.keras wrote it up to 2.4: keras_metadata.pb came later."""
    folder = tmp_path / "old"
    shutil.copytree(files / "named_ports", folder)
    metadata = SavedMetadata.FromString((folder / "keras_metadata.pb").read_bytes())
    graph = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    objects = graph.meta_graphs[0].object_graph_def.nodes
    for node in metadata.nodes:
        assert objects[node.node_id].user_object.identifier.startswith("_tf_keras")
        objects[node.node_id].user_object.metadata = node.metadata
    graph.meta_graphs[0].meta_info_def.tensorflow_version = "2.4.4"
    (folder / "saved_model.pb").write_bytes(graph.SerializeToString())
    (folder / "keras_metadata.pb").unlink()
    inputs, outputs, _ = _answers(files, "named_ports")

    model = load(folder)

    for value, expected in zip(_predicted(model, inputs), outputs, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
    assert float(model.optimizer.momentum) == pytest.approx(0.9)


def test_an_operation_that_keras_2_did_not_save_whole_is_refused_by_its_name(files, tmp_path):
    def lose(layers):
        layer = next(each for each in layers if each["config"].get("function") == "math.equal")
        layer["inbound_nodes"][0][3].clear()

    with pytest.raises(ModelError, match=r"computes with tf\.math\.equal, which fails .*tf\.not_equal"):
        load(_edited(files, tmp_path, "operations.h5", lose))


def test_a_function_whose_operands_keras_2_did_not_save_is_not_blamed_on_keras_3(files, tmp_path):
    def contract(layers):
        layer = next(each for each in layers if each["config"].get("function") == "math.equal")
        layer["config"]["function"] = "einsum"
        layer["inbound_nodes"] = [["_CONSTANT_VALUE", -1, "bij,bjk->bik", {}]]

    with pytest.raises(ModelError, match=r"computes with tf\.einsum, which fails .*tf\.matmul"):
        load(_edited(files, tmp_path, "operations.h5", contract))


def test_weights_of_another_layer_are_refused(files, tmp_path):
    def widen(layers):
        next(each for each in layers if each["name"] == "size")["config"]["units"] = 2

    with pytest.raises(ModelError, match=r"weights of layer 'size' .*size/kernel:0 \[7, 1\].*size/kernel \[7, 2\]"):
        load(_edited(files, tmp_path, "named_ports.h5", widen))
