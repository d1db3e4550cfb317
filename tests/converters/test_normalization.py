"""Normalization layers get a fleet's mean and variance: as after Keras's own adapt on the pooled data."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

import edgefl_converters
from edgefl.errors import DataError, InvalidSettingError, ModelError, StorageError
from edgefl.summaries import ArraySummary
from edgefl_converters.models.normalization import normalize, read_statistics


def statistics_file(folder, *inputs: np.ndarray):
    """What the server writes of such inputs and of a target, that devices hold in three parts."""
    arrays = {}
    for name, data in {**{f"x{i}": each for i, each in enumerate(inputs)}, "y": np.arange(len(inputs[0]))}.items():
        parts = [ArraySummary.of([part], data.shape[1:], whole=False) for part in np.array_split(data, 3)]
        total = parts[0].merged(parts[1]).merged(parts[2])
        arrays[name] = {
            "shape": list(total.shape),
            "mean": total.mean.tolist(),
            "variance": total.variance.tolist(),
        }
    path = folder / "statistics.json"
    path.write_text(json.dumps({"inputs": [name for name in arrays if name != "y"], "arrays": arrays}))
    return path


def draw(*shape: int) -> np.ndarray:
    random = np.random.default_rng(0)
    return (random.normal(size=shape) * np.arange(1, shape[-1] + 1) + 7).astype(np.float32)


def adapted(model: keras.Model, data: np.ndarray) -> np.ndarray:
    layer = next(each for each in model.layers if isinstance(each, keras.layers.Normalization))
    layer.adapt(data)
    return np.asarray(model(data))


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((6,), -1), ((6,), None), ((5, 3), -1), ((5, 3), 1), ((5, 3), (1, 2)), ((5, 3), None), ((40, 40, 3), -1)],
)
def test_a_layer_is_as_if_it_had_been_adapted_to_the_pooled_data(tmp_path, shape, axis) -> None:
    data = draw(30, *shape)
    model = keras.Sequential([keras.Input(shape), keras.layers.Normalization(axis=axis)])
    assert normalize(model, read_statistics(statistics_file(tmp_path, data))) == [model.layers[0].name]
    found = np.asarray(model(data))
    np.testing.assert_allclose(found, adapted(model, data), rtol=1e-4, atol=1e-4)
    assert abs(found.mean()) < 1e-3


def test_each_input_gets_its_own(tmp_path) -> None:
    first, second = keras.Input((4,), name="first"), keras.Input((2,), name="second")
    layers = keras.layers.Normalization(name="one"), keras.layers.Normalization(name="two")
    model = keras.Model([first, second], [layers[0](first), layers[1](second)])
    data = draw(30, 4), draw(30, 2)
    assert normalize(model, read_statistics(statistics_file(tmp_path, *data))) == ["one", "two"]
    for each in model(list(data)):
        np.testing.assert_allclose(np.asarray(each).mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(np.asarray(each).std(0), 1, atol=1e-5)


def test_the_file_normalises_and_trains_as_keras_does(tmp_path) -> None:
    data = draw(30, 6)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Normalization(name="normalization"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    told: list[str] = []
    result = edgefl_converters.convert(
        model,
        tmp_path / "model.tflite",
        normalization=statistics_file(tmp_path, data),
        batch_size=8,
        on_progress=told.append,
    )
    assert told[0] == "normalising as the fleet's data says in normalization"
    assert result.report["verification"]["runtimes"]
    assert not any("normalization" in parameter.name for parameter in result.manifest.layout)


def test_a_file_to_ask_with_needs_no_data_and_says_so_where_it_is_missing(tmp_path) -> None:
    layers = [keras.layers.Normalization(name="values"), keras.layers.Dense(3, activation="softmax")]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ModelError, match=r"'values'.*has not seen any data.*normalization='identity'"):
        edgefl_converters.convert(model, tmp_path / "model.tflite", batch_size=8)
    result = edgefl_converters.convert(model, tmp_path / "model.tflite", normalization="identity", batch_size=8)
    assert result.report["verification"]["passed"]
    again = edgefl_converters.convert(
        model, tmp_path / "model.tflite", normalization=statistics_file(tmp_path, draw(30, 6)), batch_size=8
    )
    assert again.manifest.graph_hash != result.manifest.graph_hash
    bare = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    bare.compile("sgd", "mse")
    with pytest.raises(InvalidSettingError, match="no Normalization layer"):
        edgefl_converters.convert(bare, tmp_path / "model.tflite", normalization="identity")


def test_statistics_of_the_last_axis_do_not_serve_another(tmp_path) -> None:
    model = keras.Sequential([keras.Input((40, 40, 3)), keras.layers.Normalization(axis=1)])
    with pytest.raises(DataError, match="do not tell their axes apart") as refused:
        normalize(model, read_statistics(statistics_file(tmp_path, draw(3, 40, 40, 3))))
    assert "axis=-1" in refused.value.hint


def test_a_model_that_waits_for_nothing_is_told_what_to_do(tmp_path) -> None:
    own = keras.layers.Normalization(mean=1.0, variance=2.0)
    model = keras.Sequential([keras.Input((6,)), own, keras.layers.Dense(2)])
    statistics = read_statistics(statistics_file(tmp_path, draw(9, 6)))
    with pytest.raises(InvalidSettingError, match="no Normalization layer that takes an input") as refused:
        normalize(model, statistics)
    assert "keras.layers.Normalization()" in refused.value.hint
    with pytest.raises(InvalidSettingError, match=r"of shape \(6,\), the model takes \(5,\)"):
        normalize(keras.Sequential([keras.Input((5,)), keras.layers.Normalization()]), statistics)


@pytest.mark.parametrize("text", ["{}", "[]", "no json", '{"inputs": ["x"], "arrays": {"x": {"shape": [2]}}}', "null"])
def test_a_file_of_something_else_is_refused(tmp_path, text) -> None:
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(DataError, match="holds no statistics") as refused:
        read_statistics(tmp_path / "other.json")
    assert "edgefl run statistics" in refused.value.hint
    with pytest.raises(StorageError):
        read_statistics(tmp_path / "missing.json")
