"""What is trained of a Keras model, and that the model is as it was afterwards."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from edgefl.errors import InvalidSettingError, ModelError
from edgefl_converters import FineTuning
from edgefl_converters.models.named_model import NamedModel
from edgefl_converters.training_step.selection import fine_tuned

X = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, 16)


def stacked(*between):
    """A model with normalisations that have everything, and none of their own to train."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, name="stem"),
            layers.BatchNormalization(name="norm"),
            *between,
            layers.Dense(5, activation="tanh", name="body"),
            layers.BatchNormalization(center=False, scale=False, name="plain_norm"),
            layers.Dense(3, activation="softmax", name="head"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    return model


@pytest.fixture(scope="module")
def model():
    return stacked()


def flags(model):
    return [(each.name, each._trainable) for each in (*model._flatten_layers(), *model.variables)]


def trained(model, **settings):
    """Names of what is trained, layers in short where all of it is."""
    with fine_tuned(model, FineTuning(**settings)) as chosen:
        return " ".join(chosen.name_of(each) for each in chosen.model.trainable_variables)


STEM, NORM = "stem/kernel stem/bias", "norm/gamma norm/beta"
BODY, HEAD = "body/kernel body/bias", "head/kernel head/bias"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, f"{STEM} {NORM} {BODY} {HEAD}"),
        ({"trainable": "head"}, HEAD),
        ({"trainable": ["head", "BatchNormalization"]}, f"{NORM} {HEAD}"),
        ({"trainable": "*/bias"}, "stem/bias body/bias head/bias"),
        ({"frozen": ["stem", "norm"]}, f"{BODY} {HEAD}"),
        ({"last_layers": 2}, f"{BODY} {HEAD}"),
        ({"last_layers": 4}, f"{STEM} {NORM} {BODY} {HEAD}"),
        ({"biases_only": True}, "stem/bias norm/beta body/bias head/bias"),
        ({"trainable": "stem", "last_layers": 1}, f"{STEM} {HEAD}"),
        ({"trainable": "stem", "last_layers": 1, "frozen": "kernel"}, "stem/bias head/bias"),
        ({"last_layers": 3, "frozen": "head", "biases_only": True}, "norm/beta body/bias"),
        ({"trainable": "*", "frozen": "*norm"}, f"{STEM} {BODY} {HEAD}"),
    ],
)
def test_choices_are_added_up_then_taken_away_then_only_biases_stay(model, settings, expected):
    before = flags(model)
    assert trained(model, **settings) == expected
    assert flags(model) == before


def test_what_the_model_itself_froze_can_be_trained_and_stays_frozen_otherwise():
    model = stacked()
    model.get_layer("stem").trainable = False
    model.get_layer("body")._kernel.trainable = False
    before = flags(model)
    assert trained(model, frozen="head") == f"{NORM} body/bias"
    assert trained(model, trainable=["stem", "body"]) == f"{STEM} {BODY}"
    assert trained(model, last_layers=2) == f"{BODY} {HEAD}"
    assert flags(model) == before


def test_layers_within_layers_count_one_by_one():
    keras.utils.set_random_seed(1)
    x = keras.Input((6, 8))
    y = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    model = keras.Model(x, layers.Dense(3, name="head")(y))
    model.compile("sgd", "mse")
    output = "attention/attention_output/kernel attention/attention_output/bias"
    assert trained(model, last_layers=2) == f"{output} {HEAD}"
    assert trained(model, trainable="query/bias") == "attention/query/bias"
    assert trained(model, frozen=["MultiHeadAttention"]) == HEAD


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"last_layers": 5}, InvalidSettingError, "`last_layers` is 5, but the model has 4 layers with weights"),
        ({"frozen": "*"}, InvalidSettingError, r"Everything is frozen.*`trainable`, `last_layers`"),
        ({"trainable": "head", "frozen": "Dense"}, InvalidSettingError, "Everything is frozen"),
        ({"trainable": "plain_norm"}, InvalidSettingError, "Everything is frozen"),
        ({"trainable": "haed"}, InvalidSettingError, r"`trainable` 'haed' matches nothing\. Did you mean 'head'"),
        ({"trainable": "norm/moving_mean"}, InvalidSettingError, "'norm/moving_mean' matches nothing"),
        ({"frozen": "steam"}, InvalidSettingError, r"`frozen` 'steam' matches nothing\. Did you mean 'stem'"),
        ({"trainable": "kernel", "biases_only": True}, ModelError, "no trainable layer has a bias"),
    ],
)
def test_a_choice_that_leaves_nothing_is_refused_and_the_model_stays_as_it_was(model, settings, error, message):
    before = flags(model)
    with pytest.raises(error, match=message):
        trained(model, **settings)
    assert flags(model) == before


def test_the_model_is_as_it_was_also_after_an_error_of_somebody_else(model):
    before = flags(model)
    with pytest.raises(ZeroDivisionError), fine_tuned(model, FineTuning(trainable="head")):
        1 / 0  # noqa: B018
    assert flags(model) == before


def after_a_step(model):
    model.train_on_batch(X, Y)
    return {name: np.array(each) for name, each in NamedModel(model).variables.items()}


def as_keras_freezes(*names):
    model = stacked()
    for name in names:
        model.get_layer(name).trainable = False
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize(
    ("settings", "frozen"),
    [
        ({"frozen": ["stem", "norm"]}, ["stem", "norm"]),
        ({"frozen": "BatchNormalization"}, ["norm", "plain_norm"]),
        ({"frozen": "head"}, ["head"]),  # the statistics of plain_norm go on moving
        ({"last_layers": 2}, ["stem", "norm"]),
        ({"last_layers": 1}, ["stem", "norm", "body", "plain_norm"]),
        ({"trainable": ["norm", "body", "head"]}, ["stem", "plain_norm"]),
    ],
)
def test_a_frozen_layer_is_frozen_as_keras_does_it(settings, frozen):
    """A step in Keras with the flags that the selection sets; statistics that no longer move are seen too."""
    expected = after_a_step(as_keras_freezes(*frozen))
    with fine_tuned(stacked(), FineTuning(**settings)) as chosen:
        actual = after_a_step(chosen.model)
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


def test_a_normalisation_of_which_the_offset_is_trained_normalises_over_the_batch():
    before = {name: np.array(each) for name, each in NamedModel(stacked()).variables.items()}
    with fine_tuned(stacked(), FineTuning(biases_only=True)) as chosen:
        after = after_a_step(chosen.model)
    moved = {name for name, value in after.items() if np.any(value != before[name])}
    assert moved == {"stem/bias", "norm/beta", "body/bias", "head/bias", "norm/moving_mean", "norm/moving_variance"}
