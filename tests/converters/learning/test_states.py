"""States: kept and read back with equal bits, and put into Keras."""

from __future__ import annotations

import pickle

import keras
import numpy as np
import pytest

from clients_of_keras import BATCH, dataset, model_fn_of, plain, rich, rows, same, trainer
from edgefl import learning
from edgefl.errors import DataError, ModelError, StorageError


@pytest.fixture(scope="module")
def trained():
    data = [dataset(24, 1).batch(BATCH), dataset(16, 2).batch(BATCH)]
    return trainer(rich).next(trainer(rich).initialize(), data).state, data


def through_a_file(state, folder):
    state.save(folder / "state.npz")
    return learning.ServerState.load(folder / "state.npz")


def through_savez(state, folder):
    np.savez(folder / "arrays.npz", **state.to_arrays())
    return learning.ServerState.from_arrays(np.load(folder / "arrays.npz"))


@pytest.mark.parametrize(
    "kept",
    [
        lambda state, folder: learning.ServerState.from_bytes(state.to_bytes()),
        lambda state, folder: pickle.loads(pickle.dumps(state)),
        through_a_file,
        through_savez,
    ],
    ids=["bytes", "pickle", "file", "savez"],
)
def test_what_was_kept_goes_on_to_the_same_bits(trained, kept, tmp_path):
    state, data = trained
    found = kept(state, tmp_path)
    assert same(found, state)
    assert found.round == 1
    assert same(trainer(rich).next(found, data).state, trainer(rich).next(state, data).state)
    with pytest.raises(ValueError, match="read-only"):
        found.strategy.weights[0] = 0


def test_its_weights_are_those_of_the_keras_model_in_keras_order(trained):
    state, _ = trained
    model, before = rich(), rich().get_weights()
    for one, other in zip(trainer(rich).initialize().weights, before, strict=True):
        np.testing.assert_array_equal(one, other)
    model.set_weights(state.weights)
    changed = [not np.array_equal(one, other) for one, other in zip(model.get_weights(), before, strict=True)]
    # kernel, bias; frozen kernel, bias; gamma, beta, moving mean and variance; kernel, bias
    assert changed == [True, True, False, False, True, True, True, True, True, True]
    x, y = rows(50, 9)
    evaluator = learning.build_fed_eval(model_fn_of(rich))
    start = evaluator.set_model_weights(evaluator.initialize(), trainer(rich).get_model_weights(state))
    after, metrics = evaluator.next(start, [(x[:20], y[:20]), [(x[20:], y[20:])], []])
    expected = model.evaluate(x, y, verbose=0, return_dict=True)
    assert metrics.loss == pytest.approx(expected["loss"], rel=1e-4)
    assert metrics.accuracy == pytest.approx(expected["accuracy"], abs=1e-6)
    assert metrics.num_examples == 50
    assert np.array_equal(after.strategy.weights, state.strategy.weights)


def test_weights_from_keras_can_be_gone_on_from(trained):
    state, _ = trained
    process = trainer(rich)
    model = rich()
    model.set_weights(state.weights)
    moved = process.set_model_weights(state, model.get_weights())
    assert same(moved, state)
    weights = model.get_weights()
    with pytest.raises(DataError, match="is not trained and has another value"):
        process.set_model_weights(state, [*weights[:2], weights[2] + 1, *weights[3:]])
    with pytest.raises(DataError, match="has 10 weights, got 9"):
        process.set_model_weights(state, weights[:9])
    with pytest.raises(DataError, match=r"'dense/kernel' expects shape \(6, 6\), got \(3,\)"):
        process.set_model_weights(state, weights[::-1])
    with pytest.raises(DataError, match="NaN"):
        process.set_model_weights(state, [weights[0] * np.nan, *weights[1:]])


def test_a_state_whose_frozen_weights_are_others_than_the_model_s_is_refused(trained):
    state, data = trained
    arrays = {name: np.array(array) for name, array in state.to_arrays().items()}
    (name,) = [name for name in arrays if name.startswith("fixed/") and name.endswith("kernel")]
    arrays[name][0, 0] += 1
    with pytest.raises(DataError, match="dense_1/kernel' is not trained, and has another value"):
        trainer(rich).next(learning.ServerState.from_arrays(arrays), data)


def test_what_is_no_state_is_refused(trained, tmp_path):
    state, _ = trained
    data = state.to_bytes()
    for wrong in (b"", b"no state", data[: len(data) // 2], pickle.dumps(state)):
        with pytest.raises(DataError, match="Expected the state"):
            learning.ServerState.from_bytes(wrong)
    with pytest.raises(DataError, match="Expected the state"):
        learning.ServerState.from_arrays({"weights": np.zeros(3, np.float32)})
    with pytest.raises(StorageError):
        learning.ServerState.load(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("model_fn", "said"),
    [
        (plain, "expects to return what from_compiled_keras_model does, got Sequential"),
        (3, "Expected a function"),
        (lambda: learning.from_compiled_keras_model("model.keras", rows(8, 0)), "Expected a compiled Keras model"),
        (lambda: learning.from_compiled_keras_model(uncompiled(), rows(8, 0)), "not compiled"),
    ],
)
def test_a_function_that_makes_no_model_is_refused(model_fn, said):
    with pytest.raises(ModelError, match=said):
        learning.build_weighted_fed_avg(model_fn)


def uncompiled():
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        ((np.zeros((8, 4)), np.zeros(8)), "The sample batch does not fit the model: .*expects shape"),
        ((np.zeros(6), 1), "not batched"),
        ((np.zeros((0, 6)), np.zeros(0)), "no rows"),
        (np.zeros((8, 6)), r"expects batches \(x, y\)"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused_before_anybody_trains(sample, said):
    with pytest.raises(DataError, match=said):
        learning.build_weighted_fed_avg(lambda: learning.from_compiled_keras_model(plain(), sample))


def test_a_model_without_an_input_layer_is_built_by_the_sample():
    def model_fn():
        model = keras.Sequential([keras.layers.Dense(3, "softmax", kernel_initializer="zeros")])
        model.compile("sgd", "sparse_categorical_crossentropy")
        return learning.from_compiled_keras_model(model, rows(8, 0))

    state = learning.build_federated_averaging_process(model_fn).initialize()
    assert [each.shape for each in state.weights] == [(6, 3), (3,)]
