"""A batch in micro-batches: the step of the whole batch on both runtimes, in less memory, or a clear refusal."""

from __future__ import annotations

import functools
import json

import keras
import numpy as np
import pytest
from keras import layers, losses, ops

import edgefl
import edgefl_converters
from edgefl.cli.main import main
from edgefl.errors import InvalidSettingError, UnsupportedModelError, VerificationError
from edgefl.manifest import ModelManifest
from edgefl_converters.building.building import build
from edgefl_converters.settings.options import Options
from edgefl_converters.verification.agreement import check_agreement
from edgefl_converters.verification.runtimes import Call, installed_runtimes
from edgefl_device_runtime.measuring import measure
from interpreters import EXPECTED

BATCH, PART, STEPS, REAL = 8, 2, 6, 5


def dense(units=3, **settings):
    return layers.Dense(units, activation="softmax", **settings)


def model(stack, optimizer="sgd", loss="sparse_categorical_crossentropy", **settings):
    keras.utils.set_random_seed(1)
    network = keras.Sequential(stack)
    network.compile(optimizer, loss, **settings)
    return network


def image_model(optimizer="sgd"):
    """Convolution, noise and dropout; a loss of which a regularizer is a part; a metric for weighted rows too."""
    keras.utils.set_random_seed(1)  # a layer draws the seed of its weights when it is made
    stack = [
        keras.Input((6, 6, 2)),
        layers.GaussianNoise(0.1),
        layers.Conv2D(4, 3, activation="tanh", kernel_regularizer="l2"),
        layers.Dropout(0.3),
        layers.AveragePooling2D(2),
        layers.Flatten(),
        layers.Dense(40, activation="tanh"),  # large enough for its gradient to be one product
        dense(activity_regularizer="l2"),
    ]
    return model(stack, optimizer, metrics=["accuracy"], weighted_metrics=["accuracy"])


def work(manifest: ModelManifest) -> list[Call]:
    """Full batches with weights, one of which is padded; then what there is to ask for."""
    random = np.random.default_rng(3)
    keys = {name: {spec.name: spec.tensor for spec in each.inputs} for name, each in manifest.signatures.items()}
    calls = []

    def call(signature, **named):
        calls.append(Call(signature, {keys[signature][name]: array for name, array in named.items()}))

    for step in range(STEPS):
        weight = random.uniform(0.5, 2.0, BATCH).astype(np.float32)
        if step == 2:
            weight[REAL:] = 0.0
        data = {
            manifest.inputs[0]: random.normal(size=(BATCH, 6, 6, 2)).astype(np.float32),
            manifest.targets[0].name: random.integers(0, 3, BATCH).astype(np.int32),
        }
        real = np.count_nonzero(weight)
        settings = {"learning_rate": np.full(1, 0.1, np.float32), "seed": np.full(1, 77 + step, np.int32)}
        call("train", **data, sample_weight=weight * np.float32(BATCH / real), **settings)
    call("get_state")
    weight[REAL:] = 0.0
    call("evaluate", **data, sample_weight=weight)
    call("infer", **{manifest.inputs[0]: data[manifest.inputs[0]]})
    return calls


def answers(built, path):
    path.write_bytes(built.data)
    return {
        runtime.name: [
            {spec.name: output[spec.tensor] for spec in built.manifest.signatures[call.signature].outputs}
            for call, output in zip(work(built.manifest), runtime.run(path, work(built.manifest)), strict=True)
        ]
        for runtime in installed_runtimes()
    }


LENGTH, WORDS = 5, 7


def words_model(loss, *, mask_zero=True):
    """A language model whose padding is masked up to its loss; and another output, with a loss of its own."""
    keras.utils.set_random_seed(1)
    given = keras.Input((LENGTH,), dtype="int32", name="words")
    hidden = layers.LayerNormalization()(layers.Embedding(WORDS, 4, mask_zero=mask_zero)(given))
    following = layers.Dense(WORDS, name="following")(hidden)
    length = layers.Dense(1, name="length")(layers.Flatten()(layers.Dense(2, "tanh")(hidden)))
    network = keras.Model(given, {"following": following, "length": length})
    network.compile("sgd", {"following": loss, "length": "mse"}, loss_weights={"following": 1.0, "length": 0.3})
    return network


def words_work(manifest, lowest):
    """Batches whose parts have unlike numbers of positions that count, one part none; with weights, one is padded."""
    random = np.random.default_rng(5)
    keys = {name: {spec.name: spec.tensor for spec in each.inputs} for name, each in manifest.signatures.items()}
    following, length = sorted(each.name for each in manifest.targets)
    for step in range(STEPS):
        words = random.integers(1, WORDS, (BATCH, LENGTH)).astype(np.int32)
        targets = random.integers(0, WORDS, (BATCH, LENGTH)).astype(np.int32)
        for row in range(BATCH):
            words[row, LENGTH - row % LENGTH :] = 0
            targets[row, LENGTH - row % LENGTH :] = lowest
        words[PART : 2 * PART], targets[PART : 2 * PART] = 0, lowest
        weight = random.uniform(0.5, 2.0, BATCH).astype(np.float32)
        weight[REAL if step == 2 else BATCH :] = 0.0
        data = {"words": words, following: targets, length: random.normal(size=(BATCH, 1)).astype(np.float32)}
        scaled = weight * np.float32(BATCH / np.count_nonzero(weight))
        settings = {"learning_rate": np.full(1, 0.5, np.float32), "seed": np.zeros(1, np.int32)}
        for signature, more in (
            ("train", {"sample_weight": scaled, **settings}),
            ("evaluate", {"sample_weight": weight}),
        ):
            named = {name: each for name, each in {**data, **more}.items() if name in keys[signature]}
            yield Call(signature, {keys[signature][name]: array for name, array in named.items()})
    yield Call("get_state", {})


@pytest.mark.parametrize(
    ("settings", "mask_zero", "lowest"),
    [
        ({}, True, 0),
        pytest.param({"reduction": "mean_with_sample_weight"}, True, 0, marks=pytest.mark.slow),
        pytest.param({"reduction": "sum"}, True, 0, marks=pytest.mark.slow),
        pytest.param({"ignore_class": 0}, False, 0, marks=pytest.mark.slow),
        pytest.param({"ignore_class": -1}, False, -1, marks=pytest.mark.slow),
        ({"ignore_class": -1, "reduction": "mean_with_sample_weight"}, True, -1),
    ],
    ids=str,
)
def test_positions_that_are_masked_or_ignored_divide_the_whole_batch(settings, mask_zero, lowest, tmp_path):
    loss = functools.partial(losses.SparseCategoricalCrossentropy, from_logits=True, **settings)
    network = words_model(loss(), mask_zero=mask_zero)
    found = {}
    for name, options in (("whole", Options()), ("parts", Options(micro_batch=PART))):
        built = build(network, batch_size=BATCH, options=options)
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(built.data)
        calls = list(words_work(built.manifest, lowest))
        found[name] = {runtime.name: runtime.run(path, calls) for runtime in installed_runtimes()}
    assert found["whole"].keys() == found["parts"].keys() == set(EXPECTED)
    for runtime, answered in found["whole"].items():
        for expected, own in zip(answered, found["parts"][runtime], strict=True):
            assert list(expected) == list(own)
            for key in expected:
                np.testing.assert_allclose(own[key], expected[key], rtol=2e-5, atol=2e-6, err_msg=f"{runtime} {key}")


def test_masked_positions_in_micro_batches_train_as_in_keras():
    network = words_model(losses.SparseCategoricalCrossentropy(from_logits=True))
    built = build(network, batch_size=BATCH, options=Options(micro_batch=PART))
    assert not [failure for each in check_agreement(network, built.data).runtimes for failure in each.failures]


OPTIMIZERS = {
    "sgd": lambda: "sgd",
    "momentum and clipnorm": lambda: keras.optimizers.SGD(momentum=0.9, nesterov=True, clipnorm=0.05),
    "adam and global_clipnorm": lambda: keras.optimizers.Adam(global_clipnorm=0.1),
}


@functools.cache
def in_parts(optimizer):
    """The file with micro-batches, made once for all tests."""
    return build(image_model(OPTIMIZERS[optimizer]()), batch_size=BATCH, options=Options(micro_batch=PART))


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param("sgd", marks=pytest.mark.slow),
        pytest.param("momentum and clipnorm", marks=pytest.mark.slow),
        "adam and global_clipnorm",
    ],
)
def test_a_file_with_micro_batches_trains_as_one_without_on_both_runtimes(optimizer, tmp_path):
    whole = answers(build(image_model(OPTIMIZERS[optimizer]()), batch_size=BATCH), tmp_path / "whole.tflite")
    parts = answers(in_parts(optimizer), tmp_path / "parts.tflite")
    assert whole.keys() == parts.keys() == set(EXPECTED)
    for runtime in whole:
        for expected, found in zip(whole[runtime], parts[runtime], strict=True):
            assert list(expected) == list(found)
            for name in expected:
                assert found[name].shape == expected[name].shape
                np.testing.assert_allclose(found[name], expected[name], rtol=2e-5, atol=2e-6, err_msg=name)


@pytest.mark.slow
def test_the_step_counts_once_and_repeats_itself_to_the_last_bit(tmp_path):
    built = in_parts("momentum and clipnorm")
    one, two = (answers(built, tmp_path / "m.tflite")["ai-edge-litert"] for _ in range(2))
    for first, second in zip(one, two, strict=True):
        assert {name: each.tobytes() for name, each in first.items()} == {
            name: each.tobytes() for name, each in second.items()
        }
    assert one[STEPS]["optimizer/iteration"] == STEPS


def embedded():
    """Two inputs and outputs; rows of a table that are looked up more than once, and squared each by itself."""
    keras.utils.set_random_seed(1)
    numbers, words = keras.Input((6,), name="numbers"), keras.Input((4,), name="words", dtype="int32")
    looked_up = layers.Flatten()(layers.Embedding(7, 3)(words))
    hidden = layers.Concatenate()([layers.Dense(5, activation="tanh")(numbers), looked_up])
    network = keras.Model([numbers, words], {"kind": dense(name="kind")(hidden), "size": layers.Dense(1)(hidden)})
    network.compile(
        "adam",
        {"kind": "sparse_categorical_crossentropy", "size": losses.MeanSquaredError(reduction="sum")},
        loss_weights={"kind": 1.0, "size": 0.1},
        metrics={"kind": "accuracy"},
    )
    return network


def sequence():
    loss = losses.MeanSquaredError(reduction="mean_with_sample_weight")
    stack = [keras.Input((5, 6)), layers.SpatialDropout1D(0.3), layers.Dense(4, activation="tanh"), layers.Dense(2)]
    return model(stack, keras.optimizers.SGD(0.05, gradient_accumulation_steps=2), loss)


def shared_mask():
    stack = [keras.Input((5,)), layers.Dropout(0.4, noise_shape=(1, 5)), dense()]
    return model(stack, keras.optimizers.SGD(0.1, use_ema=True, ema_overwrite_frequency=3))


def recurrent():
    stack = [keras.Input((5,)), layers.Embedding(9, 4, mask_zero=True), layers.LSTM(4, recurrent_dropout=0.2), dense()]
    return model(stack)


def attention():
    keras.utils.set_random_seed(1)
    words = keras.Input((6,), dtype="int32")
    looked_up = layers.Embedding(11, 8)(words)
    attended = layers.MultiHeadAttention(2, 4, dropout=0.2)(looked_up, looked_up)
    pooled = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(looked_up + attended))
    network = keras.Model(words, dense()(pooled))
    network.compile(keras.optimizers.AdamW(0.01, global_clipnorm=0.5), "sparse_categorical_crossentropy")
    return network


@pytest.mark.parametrize(
    ("make", "rows", "algorithms"),
    [
        pytest.param(embedded, 4, (), marks=pytest.mark.slow),
        (sequence, 4, ("feddyn",)),
        pytest.param(shared_mask, 1, ("fedsgd",), marks=pytest.mark.slow),
        pytest.param(embedded, 2, ("fedsgd",), marks=pytest.mark.slow),
        pytest.param(recurrent, 2, ("fedprox", "fedsgd"), marks=pytest.mark.slow),
        pytest.param(attention, 2, (), marks=pytest.mark.slow),
        pytest.param(image_model, 4, ("scaffold", "fedsgd"), marks=pytest.mark.slow),
    ],
)
def test_the_verification_agrees_with_keras_on_whole_batches(make, rows, algorithms):
    built = build(make(), batch_size=BATCH, options=Options(micro_batch=rows, algorithms=algorithms))
    report = check_agreement(make(), built.data)
    report.require()
    assert [each.name for each in report.runtimes if each.ran] == list(EXPECTED)


@pytest.mark.slow
def test_activations_of_a_batch_take_the_memory_of_a_micro_batch(tmp_path):
    def network():
        stack = [keras.Input((28, 28, 1)), layers.Conv2D(32, 5, activation="relu"), layers.MaxPooling2D(2)]
        return model([*stack, layers.Conv2D(32, 5, activation="relu"), layers.Flatten(), dense(10)])

    def arenas(batch_size, micro_batch):
        built = build(network(), batch_size=batch_size, options=Options(micro_batch=micro_batch))
        path = tmp_path / "m.tflite"
        path.write_bytes(built.data)
        return {each.runtime: each.arenas for each in measure(path, built.manifest)}

    whole, parts = arenas(64, None), arenas(64, 8)
    assert whole.keys() == set(EXPECTED)
    assert parts["ai-edge-litert"]["train"] < 0.4 * whole["ai-edge-litert"]["train"]
    if "tflite-runtime" in EXPECTED:
        # It keeps memory for each partition that is delegated, of which there are more.
        assert parts["tflite-runtime"]["train"] < 0.7 * whole["tflite-runtime"]["train"]


@pytest.mark.parametrize(
    ("batch_size", "micro_batch", "message"),
    [
        (8, 3, r"must divide the batch size, got 3 for a batch of 8\. Choose one of 1, 2, 4, 8"),
        (8, 16, "got 16 for a batch of 8"),
        (8, 0, "whole number of rows of at least 1, got 0"),
        (8, 2.0, r"got 2\.0"),
        (8, True, "got True"),
    ],
)
def test_a_micro_batch_that_does_not_divide_the_batch_is_refused(batch_size, micro_batch, message):
    with pytest.raises(InvalidSettingError, match=message):
        build(model([keras.Input((4,)), dense()]), batch_size=batch_size, options=Options(micro_batch=micro_batch))


@keras.saving.register_keras_serializable("micro_batches")
class InBranch(layers.Layer):
    """Draws numbers where TensorFlow keeps them in a function of their own."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.seed_generator = keras.random.SeedGenerator(1)

    def call(self, inputs):
        def noisy():
            return inputs + keras.random.uniform(ops.shape(inputs), seed=self.seed_generator)

        return ops.cond(ops.sum(inputs) > 0, noisy, lambda: inputs)


@keras.saving.register_keras_serializable("micro_batches")
class Mixed(layers.Layer):
    """Draws numbers of which no row has its own."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.seed_generator = keras.random.SeedGenerator(1)

    def call(self, inputs):
        numbers = keras.random.uniform((3, ops.shape(inputs)[0]), seed=self.seed_generator)
        return inputs + ops.transpose(numbers)


@pytest.mark.parametrize(
    ("stack", "loss", "message"),
    [
        (
            [layers.BatchNormalization(name="norm")],
            None,
            r"layer 'norm' \(BatchNormalization\) looks at all rows.*GroupNorm",
        ),
        ([layers.SpectralNormalization(layers.Dense(3))], None, "is changed in every forward pass"),
        ([], "dice", "'dice'.*a quotient of sums over the whole batch"),
        ([], losses.MeanSquaredError(reduction=None), "has no reduction"),
        ([InBranch(name="branch")], None, "draws them in a branch"),
        ([Mixed(name="mixed")], None, r"layer 'mixed' draws them in shape \(3, 8\)"),
    ],
)
def test_a_model_that_needs_all_rows_at_once_is_refused(stack, loss, message):
    network = model([keras.Input((3,)), *stack, dense()], loss=loss or "sparse_categorical_crossentropy")
    build(network, batch_size=BATCH)
    with pytest.raises(UnsupportedModelError, match=rf"(?s){message}.*[Ll]eave `micro_batch` out"):
        build(network, batch_size=BATCH, options=Options(micro_batch=PART))


def test_an_output_that_has_no_rows_is_refused():
    given = keras.Input((3,))
    network = keras.Model(given, {"kind": dense(name="kind")(given), "mean": ops.mean(given, axis=0, keepdims=True)})
    network.compile("sgd", {"kind": "sparse_categorical_crossentropy"})
    build(network, batch_size=BATCH)
    with pytest.raises(UnsupportedModelError, match=r"would change output '.*': it does not have a row for each row"):
        build(network, batch_size=BATCH, options=Options(micro_batch=PART))


@keras.saving.register_keras_serializable("micro_batches")
class Centred(layers.Layer):
    """Mixes rows without saying so."""

    def call(self, inputs):
        return inputs - ops.mean(inputs, axis=0, keepdims=True)


def test_a_layer_of_ones_own_that_mixes_rows_is_caught_by_the_verification(tmp_path):
    network = model([keras.Input((5,)), layers.Dense(4), Centred(name="centred"), dense()])
    with pytest.raises(VerificationError, match=r"layer 'centred'.*Convert without `micro_batch`"):
        edgefl.convert(network, tmp_path / "m.tflite", batch_size=4, micro_batch=2)
    assert list(tmp_path.iterdir()) == []


def test_frozen_normalisation_mixes_nothing():
    frozen = layers.BatchNormalization()
    frozen.trainable = False
    network = model([keras.Input((4,)), frozen, dense()])
    assert build(network, batch_size=BATCH, options=Options(micro_batch=PART)).manifest.micro_batch == PART


def test_a_micro_batch_as_large_as_the_batch_is_none():
    plain = build(model([keras.Input((4,)), dense()]), batch_size=BATCH)
    same = build(model([keras.Input((4,)), dense()]), batch_size=BATCH, options=Options(micro_batch=BATCH))
    assert same.data == plain.data


def test_the_command_converts_verifies_and_shows_micro_batches(tmp_path, monkeypatch, capsys):
    (tmp_path / "micro_batch_models.py").write_text(
        "import keras\n"
        "def build():\n"
        "    keras.utils.set_random_seed(1)\n"
        "    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])\n"
        "    model.compile('sgd', 'mse')\n"
        "    return model\n"
    )
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as finished:
            main(list(arguments))
        assert finished.value.code == 0
        return capsys.readouterr().out

    given = ["--batch-size", "6", "--micro-batch", "2"]
    document = json.loads(run("convert", "micro_batch_models:build", "-o", "m.tflite", *given, "--format", "json"))
    assert document["verification"]["passed"]
    assert json.loads(run("inspect", "m.tflite", "--no-measure", "--format", "json"))["micro_batch"] == 2
    assert "batch of 6 (3 × 2) rows" in run("inspect", "m.tflite", "--no-measure")
    report = edgefl.verify("m.tflite", "micro_batch_models:build")
    assert all(each.passed for each in report.runtimes)
    with_parts = edgefl_converters.explain("micro_batch_models:build", batch_size=6, micro_batch=2)
    assert list(with_parts.values()) == list(document["layers"].values())
