"""What a Flower client does with Keras."""

from __future__ import annotations

import functools
from typing import Any

import keras
import tensorflow as tf
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fleets.job import BATCH, LEARNING_RATE, job_from_environment
from local_steps.keras_models import build

app = ClientApp()


@functools.cache
def model() -> Any:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    built = build(job_from_environment().model)
    built.compile(keras.optimizers.SGD(LEARNING_RATE), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return built


@functools.cache
def rows(device: int) -> tuple[Any, Any]:
    return job_from_environment().device_rows(device)


def first_arrays() -> ArrayRecord:
    return ArrayRecord(job_from_environment().weights())


def accuracy(arrays: ArrayRecord) -> float:
    model().set_weights(arrays.to_numpy_ndarrays())
    return float(model().evaluate(*job_from_environment().tests(), batch_size=1000, verbose=0)[1])


@app.train()
def train(message: Message, context: Context) -> Message:
    x, y = rows(int(context.node_config["partition-id"]))
    model().set_weights(message.content["arrays"].to_numpy_ndarrays())
    model().fit(x, y, batch_size=BATCH, epochs=1, verbose=0)
    content = RecordDict(
        {"arrays": ArrayRecord(model().get_weights()), "metrics": MetricRecord({"num-examples": len(x)})}
    )
    return Message(content=content, reply_to=message)
