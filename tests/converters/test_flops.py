"""The count of a whole training step is the one that a person comes to with pencil and paper."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from edgefl.inspecting.flops import flops
from edgefl.inspecting.graph import read_graph
from edgefl.model_file import ModelFile
from edgefl_converters.building.building import build

ROWS = 4


def counted(stack, shape):
    model = keras.Sequential([keras.Input(shape), *stack, layers.Dense(10, "softmax")])
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    file = ModelFile(build(model, batch_size=ROWS).data)
    graph = read_graph(file)
    return flops(graph, "train"), flops(graph, "infer"), file.manifest.layout.size


def step(multiplications):
    """A layer multiplies three times: forward, for its weights' gradient and, but for the first, for its input's."""
    first, *others = multiplications
    return 2 * ROWS * (2 * first + 3 * sum(others))


def test_the_2nn_of_the_fedavg_paper():
    # McMahan et al. 2017: two hidden layers of 200 units.
    products = [784 * 200, 200 * 200, 200 * 10]

    train, infer, parameters = counted([layers.Dense(200, "relu"), layers.Dense(200, "relu")], (784,))

    assert train["matrix products"] == step(products)
    assert infer["matrix products"] == 2 * ROWS * sum(products)
    # SGD subtracts for each parameter (the learning rate is in the gradient of the layer's output already);
    # activations, loss and their gradients are few beside that.
    assert train["elementwise"] == pytest.approx(parameters, rel=0.05)
    # The gradients of the biases sum over the rows.
    assert train["reductions"] >= ROWS * (200 + 200 + 10)
    assert train["total"] == pytest.approx(step(products) + parameters, rel=0.01)


def test_the_cnn_of_the_fedavg_paper():
    # McMahan et al. 2017: 5×5 convolutions with 32 and 64 channels, each with 2×2 max pooling, and 512 units.
    products = [28 * 28 * 32 * 25, 14 * 14 * 64 * 25 * 32, 7 * 7 * 64 * 512, 512 * 10]
    stack = [
        layers.Conv2D(32, 5, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(64, 5, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(512, "relu"),
    ]

    train, infer, parameters = counted(stack, (28, 28, 1))

    # What convolutions shift along an axis is added up by convolutions with ones: a few thousandths.
    summed = train["matrix products"] + train["convolutions"], infer["matrix products"] + infer["convolutions"]
    for found, expected in zip(summed, (step(products), 2 * ROWS * sum(products)), strict=True):
        assert expected <= found < 1.006 * expected
    assert train["total"] == pytest.approx(step(products) + parameters, rel=0.02)


def test_frozen_layers_have_no_gradient_to_count():
    frozen = layers.Dense(200, "relu", trainable=False)

    train, _, _ = counted([frozen, layers.Dense(100, "relu")], (784,))

    forward = 784 * 200 + 200 * 100 + 100 * 10
    backward = 200 * 100 + 2 * 100 * 10
    assert train["matrix products"] - 2 * ROWS * (forward + backward) in (0, ROWS * 200)  # a bias may be fused
