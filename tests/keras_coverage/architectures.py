"""Whole networks: every family of keras.applications without its weights, and what people build for devices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import applications, layers

__all__ = ["ARCHITECTURES", "Architecture"]

CLASSES = 5


@dataclass(frozen=True)
class Architecture:
    """One network.

    Attributes:
        name: what it is called.
        build: makes it, compiled.
        batch_size: rows of a batch.
        slow: takes longer than about twenty seconds.
    """

    name: str
    build: Callable[[], Any]
    batch_size: int = 4
    slow: bool = False


def compiled(model: keras.Model, loss: str = "sparse_categorical_crossentropy", rate: float = 0.01) -> keras.Model:
    """With plain SGD, which hides nothing."""
    model.compile(keras.optimizers.SGD(rate), loss)
    return model


def application(family: Callable[..., Any], size: int, **settings: Any) -> Callable[[], Any]:
    """A family of keras.applications for small images."""

    def build() -> keras.Model:
        return compiled(family(weights=None, input_shape=(size, size, 3), classes=CLASSES, **settings))

    return build


def two_nn() -> keras.Model:
    """The 2NN of McMahan et al. 2017."""
    stack = [keras.Input((784,)), layers.Dense(200, "relu"), layers.Dense(200, "relu"), layers.Dense(10, "softmax")]
    return compiled(keras.Sequential(stack), rate=0.1)


def fedavg_cnn() -> keras.Model:
    """The CNN of McMahan et al. 2017."""
    stack = [keras.Input((28, 28, 1))]
    for filters in (32, 64):
        stack += [layers.Conv2D(filters, 5, activation="relu", padding="same"), layers.MaxPooling2D()]
    stack += [layers.Flatten(), layers.Dense(512, "relu"), layers.Dense(10, "softmax")]
    return compiled(keras.Sequential(stack), rate=0.1)


def ds_cnn() -> keras.Model:
    """Keyword spotting: Zhang et al., "Hello Edge", 2017, the small one on 49 x 10 cepstral coefficients."""
    x = given = keras.Input((49, 10, 1))
    x = layers.Conv2D(32, (10, 4), strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for _ in range(3):
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Conv2D(32, 1, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return compiled(keras.Model(given, layers.Dense(12, "softmax")(x)))


def u_net() -> keras.Model:
    """Ronneberger et al. 2015, with two levels: a class for each pixel."""
    given = keras.Input((16, 16, 3))
    first = layers.Conv2D(8, 3, padding="same", activation="relu")(given)
    second = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.MaxPooling2D()(first))
    bottom = layers.Conv2D(32, 3, padding="same", activation="relu")(layers.MaxPooling2D()(second))
    up = layers.Conv2DTranspose(16, 2, strides=2)(bottom)
    up = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.Concatenate()([second, up]))
    up = layers.UpSampling2D(interpolation="bilinear")(up)
    up = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.Concatenate()([first, up]))
    return compiled(keras.Model(given, layers.Conv2D(4, 1, activation="softmax")(up)))


def transformer() -> keras.Model:
    """Two blocks of Vaswani et al. 2017 over tokens, normalised first, with learned positions."""
    words = keras.Input((12,), dtype="int32")
    x = layers.Embedding(50, 16)(words) + layers.Embedding(12, 16)(keras.ops.arange(12))
    for _ in range(2):
        normal = layers.LayerNormalization()(x)
        attention = layers.MultiHeadAttention(2, 8, dropout=0.1)
        x = x + attention(normal, normal, use_causal_mask=True)
        x = x + layers.Dense(16)(layers.Dense(32, "gelu")(layers.LayerNormalization()(x)))
    scores = layers.Dense(50, "softmax")(layers.LayerNormalization()(x))
    return compiled(keras.Model(words, scores), rate=0.1)


def next_word() -> keras.Model:
    """A language model that reads padded sentences."""
    stack = [keras.Input((10,), dtype="int32"), layers.Embedding(60, 12, mask_zero=True)]
    stack += [layers.LSTM(16, return_sequences=True), layers.Dense(60, "softmax")]
    return compiled(keras.Sequential(stack), rate=0.5)


def autoencoder() -> keras.Model:
    """Convolutions down and transposed ones up."""
    stack = [keras.Input((16, 16, 1)), layers.Conv2D(8, 3, strides=2, padding="same", activation="elu")]
    stack += [layers.Conv2D(4, 3, strides=2, padding="same", activation="elu")]
    stack += [layers.Conv2DTranspose(8, 3, strides=2, padding="same", activation="elu")]
    stack += [layers.Conv2DTranspose(1, 3, strides=2, padding="same", activation="sigmoid")]
    return compiled(keras.Sequential(stack), "mse", rate=1.0)


def two_towers() -> keras.Model:
    """A recommender: users and things that they may like, as two vectors."""
    user, item = keras.Input((1,), dtype="int32", name="user"), keras.Input((3,), dtype="int32", name="item")
    left = layers.Dense(8, "tanh")(layers.Flatten()(layers.Embedding(40, 8)(user)))
    right = layers.Dense(8, "tanh")(layers.GlobalAveragePooling1D()(layers.Embedding(30, 8)(item)))
    liking = layers.Dot(axes=1, normalize=True)([left, right])
    return compiled(keras.Model([user, item], layers.Dense(1, "sigmoid")(liking)), "binary_crossentropy", rate=0.5)


ARCHITECTURES = (
    Architecture("2NN (FedAvg), 784", two_nn, 10),
    Architecture("CNN (FedAvg), 28 x 28", fedavg_cnn, 10),
    Architecture("DS-CNN, 49 x 10", ds_cnn),
    Architecture("U-Net, 16 x 16", u_net),
    Architecture("Transformer, 2 blocks, 12 tokens", transformer, slow=True),
    Architecture("next-word LSTM, 10 tokens", next_word, slow=True),
    Architecture("autoencoder, 16 x 16", autoencoder),
    Architecture("two-tower recommender", two_towers, 8),
    Architecture("MobileNet 0.25, 32 x 32", application(applications.MobileNet, 32, alpha=0.25), slow=True),
    Architecture("MobileNetV2 0.35, 32 x 32", application(applications.MobileNetV2, 32, alpha=0.35), slow=True),
    Architecture("MobileNetV3Small, 32 x 32", application(applications.MobileNetV3Small, 32), slow=True),
    Architecture("EfficientNetB0, 32 x 32", application(applications.EfficientNetB0, 32), slow=True),
    Architecture("EfficientNetV2B0, 32 x 32", application(applications.EfficientNetV2B0, 32), slow=True),
    Architecture("ResNet50, 32 x 32", application(applications.ResNet50, 32), slow=True),
    Architecture("ResNet50V2, 32 x 32", application(applications.ResNet50V2, 32), slow=True),
    Architecture("DenseNet121, 32 x 32", application(applications.DenseNet121, 32), slow=True),
    Architecture("NASNetMobile, 32 x 32", application(applications.NASNetMobile, 32), slow=True),
    Architecture("VGG16, 32 x 32", application(applications.VGG16, 32), slow=True),
    Architecture("Xception, 71 x 71", application(applications.Xception, 71), batch_size=2, slow=True),
    Architecture("InceptionV3, 75 x 75", application(applications.InceptionV3, 75), batch_size=2, slow=True),
    Architecture("ConvNeXtTiny, 32 x 32", application(applications.ConvNeXtTiny, 32), slow=True),
)
