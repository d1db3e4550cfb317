"""Files of models of which a part is trained: what is left in the graph, and that it trains as Keras does."""

from __future__ import annotations

from collections import Counter

import keras
import numpy as np
import pytest
from keras import layers

from edgefl.inspecting.graph import read_graph
from edgefl.model_file import ModelFile
from edgefl_converters import FineTuning
from edgefl_converters.building.building import build
from edgefl_converters.settings.options import Options
from edgefl_converters.training_step.selection import fine_tuned
from edgefl_converters.verification.agreement import check_agreement
from edgefl_converters.verification.runtimes import Call, installed_runtimes
from edgefl_device_runtime.measuring import measure
from interpreters import EXPECTED

BATCH = 4
TRAINED = FineTuning(trainable=["middle", "head"])


def network():
    """Frozen layers before and behind a convolution that is trained; strides, padding and depthwise filters."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((12, 12, 8)),
            layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem"),
            layers.BatchNormalization(name="stem_norm"),
            layers.ReLU(name="stem_relu"),
            layers.Conv2D(16, 3, activation="tanh", name="middle"),
            layers.UpSampling2D(3, interpolation="bilinear", name="larger"),
            layers.Conv2D(32, 5, strides=3, padding="same", activation="tanh", name="behind"),
            layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False, name="depthwise"),
            layers.BatchNormalization(name="norm"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(4, activation="softmax", name="head"),
        ]
    )
    statistics = np.random.default_rng(0)
    for layer in (model.get_layer("stem_norm"), model.get_layer("norm")):
        layer.moving_mean.assign(statistics.normal(size=layer.moving_mean.shape) / 4)
        layer.moving_variance.assign(statistics.uniform(0.5, 2, layer.moving_variance.shape))
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def ops(data, signature="train"):
    graph = read_graph(ModelFile(data))
    return Counter(graph.count(signature))


@pytest.fixture(scope="module")
def whole():
    return build(network(), batch_size=BATCH)


@pytest.fixture(scope="module")
def partly():
    """The file with its frozen weights in int8, and its float32 twin."""
    with fine_tuned(network(), TRAINED) as model:
        return build(model, batch_size=BATCH, options=Options(TRAINED, quantize_frozen="int8"))


def test_it_trains_as_keras_does_with_the_rest_frozen(partly):
    with fine_tuned(network(), TRAINED) as model:
        report = check_agreement(model, partly.float32)
    report.require()
    assert [each.ran for each in report.runtimes] == [True] * len(EXPECTED)


def test_only_what_is_trained_is_a_variable(partly):
    names = ["middle/kernel", "middle/bias", "head/kernel", "head/bias"]
    assert [each.name for each in partly.manifest.parameters] == names
    assert not partly.manifest.mixes_rows  # no statistic moves any more
    counts = ops(partly.float32)
    assert [each.name for each in partly.manifest.state] == ["optimizer/iteration"]
    assert counts["READ_VARIABLE"] == counts["ASSIGN_VARIABLE"] == len(names) + 1


def test_frozen_filters_stay_convolutions_and_so_do_gradients_through_them(partly, whole):
    """Forward: stem, behind, depthwise. Back to what is trained: one for each phase of the strides, 3 x 3 and 2 x 2.

    What `middle`, which is trained, shifts along an axis is added up by one more, with ones.
    """
    counts = ops(partly.float32)
    assert counts["CONV_2D"] == 2 + 9
    assert counts["DEPTHWISE_CONV_2D"] == 1 + 4 + 1
    assert ops(partly.float32, "infer")["CONV_2D"] == 2
    assert ops(whole.float32)["CONV_2D"] == 0


def test_nothing_is_computed_back_beyond_what_is_trained(partly, whole):
    stem = partly.layers["layer 'stem' (Conv2D)"]
    assert stem.training == "frozen"
    assert not any("Backprop" in op for op in (*stem.kept, *stem.lowered))
    assert partly.layers["layer 'stem_relu' (ReLU)"].lowered == {}
    assert "Conv2DBackpropFilter" in partly.layers["layer 'middle' (Conv2D)"].lowered
    assert "Conv2DBackpropInput" not in partly.layers["layer 'middle' (Conv2D)"].lowered
    behind = partly.layers["layer 'behind' (Conv2D)"].lowered
    assert "Conv2DBackpropInput" in behind
    assert "Conv2DBackpropFilter" not in behind
    assert {"Conv2DBackpropFilter", "Conv2DBackpropInput"} <= set(whole.layers["layer 'behind' (Conv2D)"].lowered)
    assert sum(ops(partly.float32).values()) < sum(ops(whole.float32).values())


def test_a_frozen_normalisation_is_folded_away_or_an_affine_map(partly):
    for layer in ("stem_norm", "norm"):
        assert "Mean" not in {**partly.layers[f"layer {layer!r} (BatchNormalization)"].kept}


def test_fewer_bytes_take_large_frozen_weights_alone(partly):
    tensors = read_graph(ModelFile(partly.data)).tensors
    assert {each.size for subgraph in tensors for each in subgraph if each.dtype == "int8"} >= {1152, 12800}
    # The depthwise filter has 288 values and stays; so does what is no weight.
    assert ops(partly.data, "infer")["DEQUANTIZE"] == 2
    assert ops(partly.float32)["DEQUANTIZE"] == 0
    assert ops(partly.data) - Counter(DEQUANTIZE=99) == ops(partly.float32)
    assert len(partly.data) < len(partly.float32) - 2 * 12800
    assert partly.manifest.layout_hash == ModelFile(partly.float32).manifest.layout_hash
    np.testing.assert_array_equal(ModelFile(partly.data).initial_weights(), ModelFile(partly.float32).initial_weights())


@pytest.mark.parametrize("runtime", installed_runtimes(), ids=lambda runtime: runtime.name)
def test_what_is_trained_learns_beside_frozen_weights_in_fewer_bytes(partly, runtime, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(partly.data)
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(BATCH, 12, 12, 8)).astype(np.float32), np.arange(BATCH, dtype=np.int32)
    given = {"y": y, "sample_weight": np.ones(BATCH, np.float32), "learning_rate": np.array([1.0], np.float32)}
    given[partly.manifest.inputs[0]] = x
    keys = {spec.name: spec.tensor for spec in partly.manifest.signatures["train"].inputs}
    answers = runtime.run(path, [Call("train", {key: given[name] for name, key in keys.items()})] * 60)
    loss = next(spec.tensor for spec in partly.manifest.signatures["train"].outputs if spec.name == "loss")
    assert float(np.sum(answers[-1][loss])) < 0.8 * float(np.sum(answers[0][loss]))


def test_the_delegate_takes_the_same_ops_with_weights_in_fewer_bytes(partly, tmp_path):
    measured = []
    for name, data in (("float32", partly.float32), ("stored", partly.data)):
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(data)
        measured.append([each.delegation for each in measure(path, partly.manifest)])
    for plain, stored in zip(*measured, strict=True):
        restoring = stored.ops - plain.ops
        assert restoring > 0
        assert plain.taken > plain.ops / 2
        assert plain.taken <= stored.taken <= plain.taken + restoring


def test_only_offsets_can_be_trained_of_a_network_with_normalisation():
    offsets = FineTuning(biases_only=True)
    with fine_tuned(network(), offsets) as model:
        built = build(model, batch_size=BATCH, options=Options(offsets))
        check_agreement(model, built.data).require()
    manifest = built.manifest
    weights = {each.name for each in manifest.parameters if each.role == "weight"}
    assert weights == {"stem_norm/beta", "middle/bias", "behind/bias", "norm/beta", "head/bias"}
    assert {each.name for each in manifest.parameters if each.role == "statistic"} == {
        f"{layer}/moving_{kind}" for layer in ("stem_norm", "norm") for kind in ("mean", "variance")
    }
    assert manifest.mixes_rows
    assert ops(built.data)["CONV_2D"] >= 2


def test_a_weight_that_was_made_untrainable_is_trained_when_it_is_chosen(tmp_path):
    keras.utils.set_random_seed(1)
    stack = [keras.Input((6,)), layers.Dense(8, activation="tanh", trainable=False, name="body")]
    model = keras.Sequential([*stack, layers.Dense(3, name="head")])
    model.compile("sgd", "mse")
    model.save(tmp_path / "model.keras")
    chosen = FineTuning(trainable="body")
    with fine_tuned(keras.saving.load_model(tmp_path / "model.keras"), chosen) as loaded:
        built = build(loaded, batch_size=BATCH, options=Options(chosen))
        report = check_agreement(loaded, built.data, runtimes=installed_runtimes()[:1])
    report.require()
    assert [each.name for each in built.manifest.parameters] == ["body/kernel", "body/bias"]
    assert all(each.scale > 0 for each in report.runtimes[0].comparisons if each.kind == "gradient")


def test_frozen_positions_lie_in_the_file_once_not_for_each_row():
    length, width = 24, 32
    keras.utils.set_random_seed(2)
    tokens = keras.Input((length,), dtype="int32")
    places = keras.ops.cumsum(keras.ops.ones_like(tokens), axis=1) - 1
    x = layers.Embedding(20, width, name="tokens")(tokens) + layers.Embedding(length, width, name="places")(places)
    model = keras.Model(tokens, layers.Dense(3, name="head")(x))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with fine_tuned(model, FineTuning(trainable="head")) as tuned:
        built = build(tuned, batch_size=BATCH, options=Options(FineTuning(trainable="head")))
        table = np.asarray(model.get_layer("places").embeddings)

        check_agreement(tuned, built.data).require()

    assert built.data.count(table.tobytes()) == 1
