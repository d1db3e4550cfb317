"""Models that compute their own loss or take their own step train on devices as in Keras, or are refused by name."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import edgefl
from beside_keras import fits_alike
from edgefl.errors import ModelError, UnsupportedModelError
from edgefl_converters.building.building import build
from edgefl_converters.settings.options import Options
from edgefl_device_runtime.training import TrainableModel


def rows(count=12, units=3):
    random = np.random.default_rng(7)
    return random.normal(size=(count, 5)).astype(np.float32), random.normal(size=(count, units)).astype(np.float32)


def classes(count=12):
    return np.random.default_rng(8).integers(0, 3, count)


def functional(kind, loss=None, optimizer="sgd", *, activation=None, **compiled):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    hidden = layers.Dense(4, activation="tanh", kernel_regularizer="l2")(inputs)
    model = kind(inputs, layers.Dense(3, activation=activation)(hidden))
    model.compile(optimizer, loss, **compiled)
    return model


class OwnLoss(keras.Model):
    """No loss is compiled: it is all in here, with the penalties of layers."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(ops.square(y - y_pred)) + ops.sum(self.losses)


class MoreLoss(keras.Model):
    """Adds to the compiled loss; written before Keras gave the method the argument ``training``."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return super().compute_loss(x, y, y_pred, sample_weight) + 0.1 * ops.mean(ops.abs(y_pred))


class LossOfInputs(keras.Model):
    """Takes no targets at all."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(ops.square(y_pred - x[:, :3]))


class TrackedLoss(keras.Model):
    """As Keras documents it: its metrics are its own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.size_tracker = keras.metrics.Mean(name="size")

    def compute_loss(self, x, y, y_pred, sample_weight, training=True):
        loss = ops.mean((y_pred - y) ** 2) + ops.sum(self.losses)
        self.loss_tracker.update_state(loss)
        self.size_tracker.update_state(ops.mean(ops.abs(y_pred)))
        return loss

    @property
    def metrics(self):
        return [self.loss_tracker, self.size_tracker]


class OwnStep(keras.Model):
    """The step of Keras's guide to TensorFlow's training loops."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=y_pred)
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {metric.name: metric.result() for metric in self.metrics}


class WithoutCompiledLoss(keras.Model):
    """Lower still: losses and metrics are attributes, and one entry is a plain number."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        self.loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            scores = self(x, training=True)
            loss = self.loss_fn(y, scores)
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights))
        self.loss_tracker.update_state(loss)
        self.accuracy.update_state(y, scores)
        return {"loss": self.loss_tracker.result(), "accuracy": self.accuracy.result()}

    def test_step(self, data):
        x, y = data
        scores = self(x, training=False)
        self.loss_tracker.update_state(self.loss_fn(y, scores))
        self.accuracy.update_state(y, scores)
        return {metric.name: metric.result() for metric in self.metrics}

    @property
    def metrics(self):
        return [self.loss_tracker, self.accuracy]


class WeightedStep(keras.Model):
    """Handles weights of rows where it is given some."""

    def train_step(self, data):
        x, y, weight = data if len(data) == 3 else (*data, None)
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True), sample_weight=weight)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss}


class OnlyTheHead(keras.Model):
    """Takes the gradient of some of its weights, clipped by hand."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = ops.mean(ops.square(self(x, training=True) - y))
        head = self.layers[-1].trainable_variables
        gradients = [tf.clip_by_norm(each, 0.5) for each in tape.gradient(loss, head)]
        self.optimizer.apply(gradients, head)
        return {"loss": loss}


class Distiller(keras.Model):
    """Has arguments of its own in `compile`, and a frozen model inside."""

    def __init__(self, student, teacher):
        super().__init__()
        self.student, self.teacher = student, teacher

    def compile(self, optimizer, student_loss, distillation_loss, alpha=0.25):
        super().compile(optimizer=optimizer, metrics=["sparse_categorical_accuracy"])
        self.student_loss, self.distillation_loss, self.alpha = student_loss, distillation_loss, alpha

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, allow_empty=False):
        taught = ops.softmax(self.teacher(x, training=False))
        distilled = self.distillation_loss(taught, ops.softmax(y_pred))
        return self.alpha * self.student_loss(y, y_pred) + (1.0 - self.alpha) * distilled

    def call(self, x):
        return self.student(x)


def distiller():
    keras.utils.set_random_seed(1)
    student = keras.Sequential([keras.Input((5,)), layers.Dense(3)])
    teacher = keras.Sequential([keras.Input((5,)), layers.Dense(6, activation="tanh"), layers.Dense(3)])
    teacher.trainable = False
    model = Distiller(student, teacher)
    model.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), keras.losses.KLDivergence(), alpha=0.5
    )
    model(np.zeros((1, 5), np.float32))
    return model


MODELS = {
    "own loss": (lambda: functional(OwnLoss), lambda: rows(), "OwnLoss.compute_loss"),
    "more loss": (
        lambda: functional(
            MoreLoss, "sparse_categorical_crossentropy", "adam", activation="softmax", metrics=["accuracy"]
        ),
        lambda: (rows()[0], classes()),
        "MoreLoss.compute_loss",
    ),
    "loss of inputs": (lambda: functional(LossOfInputs), lambda: (rows()[0], None), "LossOfInputs.compute_loss"),
    "tracked loss": (lambda: functional(TrackedLoss), lambda: rows(), "TrackedLoss.compute_loss"),
    "own step": (lambda: functional(OwnStep, "mse", metrics=["mae"]), lambda: rows(), "OwnStep.train_step"),
    "without compiled loss": (
        lambda: functional(WithoutCompiledLoss, optimizer="adam"),
        lambda: (rows()[0], classes()),
        "WithoutCompiledLoss.train_step",
    ),
    "scaled loss": (
        lambda: functional(OwnLoss, optimizer=keras.optimizers.SGD(0.1, loss_scale_factor=32.0)),
        lambda: rows(),
        "OwnLoss.compute_loss",
    ),
    "distiller": (distiller, lambda: (rows()[0], classes()), "Distiller.compute_loss"),
}


SLOW = {"own loss", "own step", "scaled loss"}
"""Each of them does less than one of the others."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in MODELS])
def test_a_model_with_a_loss_or_a_step_of_its_own_trains_as_in_keras(name, tmp_path):
    make, data, owner = MODELS[name]
    manifest = fits_alike(make(), tmp_path, *data())
    assert manifest.mixes_rows
    assert manifest.of_whole_batches == (owner,)
    assert bool(manifest.targets) == (name != "loss of inputs")


def test_weights_that_the_step_does_not_train_are_frozen(tmp_path):
    model = functional(OnlyTheHead, optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
    before = np.array(model.layers[1].kernel)
    edgefl.convert(model, tmp_path / "model.tflite", batch_size=4, verify=False)
    device = TrainableModel(tmp_path / "model.tflite")
    x, y = rows(4)
    device.fit(x, y, epochs=3)
    model.fit(x, y, batch_size=4, epochs=3, verbose=0)
    np.testing.assert_allclose(device.get_weights()[0], model.layers[2].kernel, rtol=1e-5)
    np.testing.assert_array_equal(before, model.layers[1].kernel)
    assert [each.name for each in device.manifest.parameters] == ["dense_1/kernel", "dense_1/bias"]


def test_evaluation_and_weights_of_rows_are_keras_own(tmp_path):
    model = functional(WeightedStep, "mse")
    device = TrainableModel(build(model, batch_size=4).data)
    x, y = rows(4)
    weight = np.array([0.5, 2.0, 1.0, 1.5], np.float32)
    expected = model.evaluate(x, y, sample_weight=weight, verbose=0)
    assert device.evaluate(x, y, weight)["loss"] == pytest.approx(expected, rel=1e-5)
    expected = model.train_on_batch(x, y, sample_weight=weight, return_dict=True)
    assert device.train_on_batch(x, y, weight)["loss"] == pytest.approx(float(expected["loss"]), rel=1e-5)
    np.testing.assert_allclose(device.get_weights()[0], model.weights[0], rtol=1e-5)


class Sampling(layers.Layer):
    """Draws whether it trains or not, and tells how far from normal what it draws from is."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(1337)
        self.tracker = keras.metrics.Mean(name="divergence")

    def call(self, inputs):
        mean, log_variance = inputs
        divergence = -0.5 * ops.mean(ops.sum(1 + log_variance - mean**2 - ops.exp(log_variance), axis=-1))
        self.add_loss(divergence)
        self.tracker.update_state(divergence)
        drawn = keras.random.normal(ops.shape(mean), seed=self.seed_generator)
        return mean + ops.exp(0.5 * log_variance) * drawn


class VAE(keras.Model):
    """Keras's example: a step of its own over an encoder and a decoder, without a compiled loss."""

    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.total = keras.metrics.Mean(name="total_loss")
        self.reconstruction = keras.metrics.Mean(name="reconstruction_loss")

    @property
    def metrics(self):
        return [self.total, self.reconstruction]

    def train_step(self, data):
        with tf.GradientTape() as tape:
            mean, log_variance, drawn = self.encoder(data)
            reconstruction = ops.mean(ops.sum(ops.square(data - self.decoder(drawn)), axis=-1))
            divergence = -0.5 * ops.mean(ops.sum(1 + log_variance - mean**2 - ops.exp(log_variance), axis=-1))
            total = reconstruction + divergence
        self.optimizer.apply_gradients(zip(tape.gradient(total, self.trainable_weights), self.trainable_weights))
        self.total.update_state(total)
        self.reconstruction.update_state(reconstruction)
        return {"loss": self.total.result(), "reconstruction_loss": self.reconstruction.result()}


class PredictingVAE(VAE):
    def call(self, inputs):
        return self.decoder(self.encoder(inputs)[2])


class Drawing(Sampling):
    def call(self, inputs):
        mean, log_variance = inputs
        return mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean), seed=self.seed_generator)


def vae(kind):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8,))
    hidden = layers.Dense(6, activation="relu")(inputs)
    mean, log_variance = layers.Dense(2)(hidden), layers.Dense(2)(hidden)
    encoder = keras.Model(inputs, [mean, log_variance, Drawing()([mean, log_variance])])
    model = kind(encoder, keras.Sequential([keras.Input((2,)), layers.Dense(8, activation="sigmoid")]))
    model.compile(keras.optimizers.Adam(0.01))
    return model


def test_a_vae_of_layers_trains_though_it_also_draws_in_evaluation(tmp_path):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8,))
    hidden = layers.Dense(6, activation="relu")(inputs)
    drawn = Sampling()([layers.Dense(2)(hidden), layers.Dense(2)(hidden)])
    model = keras.Model(inputs, layers.Dense(8, activation="sigmoid")(drawn))
    model.compile("adam", "mse")
    before = [np.array(each) for each in model.variables]

    result = edgefl.convert(model, tmp_path / "model.tflite", batch_size=4)

    assert result.report["verification"]["passed"]
    assert [each.name for each in result.manifest.metrics] == ["divergence"]
    assert not [each.name for each in result.manifest.parameters if "divergence" in each.name]
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, variable)


def test_a_vae_with_its_own_step_trains_without_targets(tmp_path):
    model = vae(PredictingVAE)
    model(np.zeros((1, 8), np.float32))
    result = edgefl.convert(model, tmp_path / "model.tflite", batch_size=4, algorithms="fedprox")
    assert result.report["verification"]["passed"]
    assert "PredictingVAE.train_step" in result.report["verification"]["reference"]
    device = TrainableModel(tmp_path / "model.tflite")
    x = np.random.default_rng(0).uniform(size=(40, 8)).astype(np.float32)
    history = device.fit(x, epochs=8).history
    assert history["loss"][-1] < history["loss"][0]
    assert device.evaluate(x).keys() == {"loss", "reconstruction_loss"}
    assert device.predict(x).shape == (40, 8)


class Endpoint(layers.Layer):
    """Adds the loss of a prediction and of targets that are inputs."""

    def call(self, targets, predictions):
        self.add_loss(ops.mean(ops.square(targets - predictions)))
        return predictions


def test_targets_may_be_inputs_of_a_layer_that_adds_the_loss(tmp_path):
    keras.utils.set_random_seed(1)
    inputs, targets = keras.Input((5,), name="x"), keras.Input((3,), name="targets")
    model = keras.Model([inputs, targets], Endpoint()(targets, layers.Dense(3)(inputs)))
    model.compile("adam")
    manifest = fits_alike(model, tmp_path, list(rows()))
    assert manifest.targets == ()
    assert manifest.of_whole_batches == ("what layer 'endpoint' (Endpoint) adds to the loss",)


class CTCEndpoint(layers.Layer):
    """As in Keras's example of reading captchas, with labels that `ctc_batch_cost` makes sparse."""

    def call(self, labels, predictions):
        from keras.src.legacy.backend import ctc_batch_cost

        ones = ops.ones((ops.shape(labels)[0], 1), dtype="int64")
        steps, length = ops.cast(ops.shape(predictions)[1], "int64"), ops.cast(ops.shape(labels)[1], "int64")
        self.add_loss(ctc_batch_cost(labels, predictions, steps * ones, length * ones))
        return predictions


def test_ctc_trains_as_an_endpoint_layer_of_sparse_labels_and_as_a_loss_of_dense_ones(tmp_path):
    keras.utils.set_random_seed(1)
    frames, labels = keras.Input((6, 5), name="frames"), keras.Input((2,), name="label", dtype="float32")
    predictions = layers.Dense(4, activation="softmax")(frames)
    endpoint = keras.Model([frames, labels], CTCEndpoint()(labels, predictions))
    endpoint.compile(keras.optimizers.Adam(0.01))
    random = np.random.default_rng(0)
    x = random.normal(size=(8, 6, 5)).astype(np.float32)
    fits_alike(endpoint, tmp_path, [x, random.integers(0, 3, (8, 2)).astype(np.float32)])

    dense = keras.Sequential([keras.Input((6, 5)), layers.Dense(4)])
    dense.compile("sgd", keras.losses.CTC())
    y = np.array([[1, 2, 0, 0, 0, 0], [3, 3, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0], [1, 2, 3, 0, 0, 0]] * 2)
    manifest = fits_alike(dense, tmp_path, x, y)
    assert not manifest.mixes_rows


class Adversarial(keras.Model):
    def __init__(self, discriminator, generator):
        super().__init__()
        self.discriminator, self.generator = discriminator, generator

    def compile(self, d_optimizer, g_optimizer):
        super().compile()
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer

    def train_step(self, real):
        raise AssertionError("never called")


def adversarial():
    model = Adversarial(
        keras.Sequential([keras.Input((4,)), layers.Dense(1)]), keras.Sequential([keras.Input((2,)), layers.Dense(4)])
    )
    model.compile(keras.optimizers.Adam(), keras.optimizers.Adam())
    return model


class Eager(OwnStep):
    def train_step(self, data):
        if float(data[0][0, 0]) > 0:
            return super().train_step(data)
        return {}


class TwoSteps(OwnStep):
    def train_step(self, data):
        super().train_step(data)
        return super().train_step(data)


class ByHand(keras.Model):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = ops.mean(ops.square(self(x, training=True) - y))
        for variable, gradient in zip(self.trainable_variables, tape.gradient(loss, self.trainable_variables)):
            variable.assign_sub(0.1 * gradient)
        return {"loss": loss}


class HiddenOptimizer(OwnStep):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = ops.mean(ops.square(self(x, training=True) - y))
        second[0].apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss}


second = [keras.optimizers.SGD(0.1)]


@pytest.mark.parametrize(
    ("make", "words", "way_out"),
    [
        (
            adversarial,
            r"Adversarial\.train_step uses optimizers of its own \(d_optimizer, g_optimizer\)",
            r"discriminator, generator.*by itself",
        ),
        (
            lambda: functional(HiddenOptimizer, "mse"),
            r"HiddenOptimizer\.train_step uses optimizers .*SGD",
            "self.optim",
        ),
        (lambda: functional(Eager, "mse"), r"Eager\.train_step cannot be traced", "run_eagerly"),
        (lambda: functional(TwoSteps, "mse"), r"TwoSteps\.train_step takes several steps", "one step"),
        (lambda: functional(ByHand), r"ByHand\.train_step takes no step", r"self\.optimizer\.apply"),
        (lambda: vae(VAE), "VAE has no `call`", r"call\(self, inputs\)"),
    ],
)
def test_other_steps_are_refused_by_name_with_a_way_out(make, words, way_out):
    with pytest.raises(UnsupportedModelError, match=words) as caught:
        build(make(), batch_size=4)
    assert re.search(way_out, str(caught.value.hint))


def test_the_way_out_of_an_adversarial_network_leads_somewhere():
    with pytest.raises(UnsupportedModelError, match="uses optimizers of its own") as caught:
        build(adversarial(), batch_size=4)
    assert "discriminator" in str(caught.value.hint)
    discriminator = adversarial().discriminator
    discriminator.compile("adam", "mse")
    assert build(discriminator, batch_size=4).manifest.targets


def test_a_model_without_any_loss_is_told_so_and_one_that_brings_its_own_needs_none(tmp_path):
    with pytest.raises(ModelError, match="no loss: it was compiled without one, and no layer adds one"):
        edgefl.convert(functional(keras.Model), tmp_path / "m.tflite")
    model = functional(OwnLoss)
    model.compiled = False
    manifest = edgefl.convert(model, tmp_path / "m.tflite", optimizer="sgd", batch_size=4, verify=False).manifest
    assert [each.name for each in manifest.targets] == ["y"]


def test_micro_batches_are_refused_for_a_step_that_is_called_with_a_batch():
    with pytest.raises(UnsupportedModelError, match=r"OwnStep\.train_step is called with a batch"):
        build(functional(OwnStep, "mse"), batch_size=4, options=Options(micro_batch=2))


def test_a_gradient_without_a_step_is_that_of_the_own_loss(tmp_path):
    model = functional(OwnStep, "mse", optimizer=keras.optimizers.SGD(0.1))
    report = edgefl.convert(model, tmp_path / "m.tflite", batch_size=4, algorithms=("fedsgd", "scaffold")).report
    kinds = {each["kind"] for each in report["verification"]["runtimes"][0]["comparisons"]}
    assert {"given gradient", "pulled training", "evaluate"} <= kinds
