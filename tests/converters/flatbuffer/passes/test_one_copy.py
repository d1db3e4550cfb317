"""Large frozen kernels lie in the file once, are read where they lie, and train as Keras does."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

from edgefl.child_processes import run_child
from edgefl.inspecting.graph import read_graph
from edgefl.model_file import ModelFile
from edgefl_converters import FineTuning
from edgefl_converters.building.building import build
from edgefl_converters.flatbuffer.in_place import LARGE, is_read_in_place
from edgefl_converters.settings.options import Options
from edgefl_converters.training_step.selection import fine_tuned
from edgefl_converters.verification.agreement import check_agreement
from interpreters import EXPECTED, each_interpreter

ROWS, TOKENS, WIDTH = 2, 16, 256
"""Two rows of tokens are one tile of 32; a square kernel is just large enough."""
DEEP = 768
"""The width of the layers whose memory is measured."""
SIGNATURES = ("train", "evaluate", "infer")


def decoder():
    """Attention, layers of every kind that can have adapters, and an embedding that is the head too."""
    keras.utils.set_random_seed(3)
    tokens = keras.Input((TOKENS,), dtype="int32", name="tokens")
    embedding = layers.ReversibleEmbedding(288, WIDTH, name="embedding")
    x = embedding(tokens)
    normed = layers.RMSNormalization(name="norm")(x)
    x = x + layers.MultiHeadAttention(4, WIDTH // 4, name="attention")(normed, normed, use_causal_mask=True)
    x = x + layers.EinsumDense("abc,cd->abd", (TOKENS, WIDTH), bias_axes="d", name="einsum")(x)
    wide = layers.Dense(320, activation="silu", name="up")(x)
    x = x + layers.Dense(WIDTH, use_bias=False, name="down")(wide)
    model = keras.Model(tokens, embedding(x, reverse=True))
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def with_adapters():
    """The decoder with adapters as training leaves them: B is not zero."""
    model = decoder()
    for layer in model._flatten_layers(include_self=False):
        if hasattr(layer, "enable_lora"):
            layer.enable_lora(2)
    generator = np.random.default_rng(0)
    for variable in model.weights:
        variable.trainable = "lora" in variable.name
        if "lora" in variable.name:
            variable.assign(generator.normal(size=variable.shape).astype(np.float32) / 8)
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def points():
    """Convolutions of one tap above and below what is trained, with and without normalisation and activation."""
    keras.utils.set_random_seed(4)
    inputs = keras.Input((4, 4, WIDTH))
    x = layers.Conv2D(288, 1, use_bias=False, name="first")(inputs)
    x = layers.ReLU(6.0)(layers.BatchNormalization(name="norm")(x))
    x = layers.Conv2D(WIDTH, 1, activation="relu", padding="same", name="second")(x)
    x = layers.Conv2D(288, 1, strides=(2, 1), name="strided")(layers.UpSampling2D((2, 1))(x))
    x = layers.Conv2D(WIDTH, 3, padding="same", activation="relu", name="square")(x)
    x = layers.Conv2D(WIDTH, (2, 3), padding="same", name="even")(x)
    x = layers.Conv2D(WIDTH, 1, activation="tanh", name="trained")(x)
    x = layers.Conv2D(320, 1, activation="tanh", name="behind")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(4, activation="softmax", name="head")(x))
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    return model


def stack(width=WIDTH):
    """Dense layers between two that are trained, so that outputs and gradients go through them all."""
    keras.utils.set_random_seed(5)
    middle = [layers.Dense(width, activation="tanh", name=f"frozen_{number}") for number in range(16)]
    ends = layers.Dense(width, name="first"), layers.Dense(4, activation="softmax", name="head")
    model = keras.Sequential([keras.Input((8,)), ends[0], *middle, ends[1]])
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    return model


CASES = {
    "adapters": (with_adapters, FineTuning(), ROWS, {}),
    "in micro-batches": (with_adapters, FineTuning(), 2 * ROWS, {"micro_batch": ROWS}),
    "convolutions": (points, FineTuning(trainable=["trained", "head"]), 2, {}),
    "dense": (stack, FineTuning(trainable=["first", "head"]), 32, {}),
}


@pytest.fixture(scope="module", params=list(CASES))
def made(request):
    make, tuning, rows, options = CASES[request.param]
    with fine_tuned(make(), tuning) as model:
        built = build(model, batch_size=rows, options=Options(tuning, **options))
        yield model, built, request.param


def large_kernels(model):
    """The frozen kernels as matrices, by path: what leads into projections of attention is their first axis."""
    for variable in model.model.weights:
        value = np.asarray(variable)
        if value.nbytes >= LARGE and "lora" not in variable.path and "trained" not in variable.path:
            projects = any(f"{name}/kernel" in variable.path for name in ("query", "key", "value"))
            yield (
                variable.path,
                value.reshape(value.shape[0] if projects else -1, WIDTH if projects else value.shape[-1]),
            )


def test_it_trains_as_keras_does_on_both_runtimes(made):
    model, built, _ = made
    report = check_agreement(model, built.data)

    report.require()
    assert [runtime.ran for runtime in report.runtimes] == [True] * len(EXPECTED)


def test_each_kernel_lies_in_the_file_once(made):
    model, built, name = made
    found = {
        path: built.data.count(matrix.tobytes()) + built.data.count(np.ascontiguousarray(matrix.T).tobytes())
        for path, matrix in large_kernels(model)
    }

    assert len(found) >= (2 if name == "convolutions" else 5)
    if name == "convolutions":
        found.pop("first/kernel")  # which normalisation has been multiplied into
    assert set(found.values()) == {1}, found


@pytest.mark.parametrize("signature", SIGNATURES)
def test_no_product_packs_one(made, signature):
    graph = read_graph(ModelFile(made[1].data))
    index = graph.signatures[signature]
    tensors, sizes = graph.tensors[index], graph.buffer_sizes
    large = [
        (operator.name, place)
        for operator in graph.operators[index]
        if operator.name in ("BATCH_MATMUL", "CONV_2D", "FULLY_CONNECTED")
        for place, tensor in enumerate(operator.inputs)
        if tensor >= 0 and sizes[tensors[tensor].buffer] >= LARGE
    ]

    assert large
    assert set(large) == {("BATCH_MATMUL", 0)}


def test_few_rows_leave_kernels_as_they_are():
    tuning = FineTuning(trainable=["first", "head"])
    with fine_tuned(stack(), tuning) as model:
        few = build(model, batch_size=8, options=Options(tuning))
        without = build(model, batch_size=8, options=Options(tuning, without_passes="one_copy"))
    assert few.data == without.data


def test_at_most_a_quarter_of_a_tile_may_be_idle():
    enough = [rows for rows in range(1, 97) if is_read_in_place((WIDTH, WIDTH), rows)]
    assert enough == [*range(24, 33), *range(48, 65), *range(72, 97)]


class OfTwoKernels(layers.Layer):
    """Multiplies a kernel with another one, and inputs with either."""

    def build(self, shape):
        self.one = self.add_weight(shape=(WIDTH, WIDTH), name="one")
        self.other = self.add_weight(shape=(WIDTH, WIDTH), name="other")

    def call(self, x):
        parts = [ops.tanh(ops.tanh(scale * x) @ self.one) @ self.other for scale in (1.0, 2.0, 3.0)]
        return x @ (self.one @ self.other) + sum(parts)


def test_the_product_of_two_kernels_stays_as_it_is():
    keras.utils.set_random_seed(6)
    ends = layers.Dense(WIDTH, name="first"), layers.Dense(4, name="head")
    network = keras.Sequential([keras.Input((TOKENS, WIDTH)), ends[0], OfTwoKernels(name="two"), ends[1]])
    network.compile(keras.optimizers.SGD(0.05), "mse")
    tuning = FineTuning(trainable=["first", "head"])
    with fine_tuned(network, tuning) as model:
        built = build(model, batch_size=ROWS, options=Options(tuning))
        check_agreement(model, built.data).require()
        kernels = [np.asarray(each) for each in model.model.layers[1].weights]
    assert [built.data.count(kernel.tobytes()) for kernel in kernels] == [1, 1]
    assert [built.data.count(np.ascontiguousarray(kernel.T).tobytes()) for kernel in kernels] == [0, 0]


_STEP = """
import sys
import numpy as np
import edgefl

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon"))

file, runtime = sys.argv[1:]
generator = np.random.default_rng(0)
x, y = generator.normal(size=(32, 8)).astype(np.float32), generator.integers(0, 4, 32).astype(np.int32)
before = anonymous()
model = edgefl.TrainableModel(file, runtime=runtime)
for call in (model.train_on_batch, model.train_on_batch, model.evaluate):
    call(x, y)
model.predict(x)
print(anonymous() - before)
"""


@pytest.fixture(scope="module")
def anonymous(tmp_path_factory):
    """Bytes of anonymous memory that training, evaluating and predicting take, by runtime and passes left out."""
    folder, tuning = tmp_path_factory.mktemp("stack"), FineTuning(trainable=["first", "head"])
    (folder / "step.py").write_text(_STEP)

    def measured(runtime, *without):
        file = folder / f"{len(without)}.tflite"
        if not file.exists():
            with fine_tuned(stack(DEEP), tuning) as model:
                built = build(model, batch_size=32, options=Options(tuning, without_passes=list(without)))
            file.write_bytes(built.data)
        return int(run_child(folder / "step.py", file, runtime, seconds=120))

    return measured


WEIGHTS = 16 * 4 * DEEP**2


@pytest.mark.parametrize("runtime", each_interpreter())
def test_a_process_has_no_copy_of_them(anonymous, runtime):
    assert anonymous(runtime) < WEIGHTS / 2


def test_without_the_pass_it_has_one_for_each_signature(anonymous):
    assert anonymous("ai-edge-litert", "one_copy") > 2 * WEIGHTS
