"""The language model in plain Keras, and the training of its base; needs TensorFlow, as `preparing.py` does."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from edgefl.atomic import write_text
from examples.keyboard.plays import BASE_PLAYS, UNSEEN_PLAY, speeches
from examples.keyboard.windows import CHARACTERS, LENGTH, encoded, windows

__all__ = ["build", "pretrain"]

SEED = 1623  # the year of the First Folio
WIDTH = 96
HEADS = 4
BLOCKS = 2
STEPS = 2000
ROWS = 64
"""Windows in a step of the base's training."""
RATE_OF_ADAPTERS = 0.005
"""Adam's, on devices."""


def build(width: int = WIDTH, blocks: int = BLOCKS) -> Any:
    """A decoder: of each character in a window it says what comes next, and sees nothing but what stands before.

    Args:
        width: of what travels between its blocks.
        blocks: of attention and two dense layers.
    """
    keras.utils.set_random_seed(SEED)
    layers = keras.layers
    typed = keras.Input((LENGTH,), dtype="int32", name="typed")
    places = keras.ops.cumsum(keras.ops.ones_like(typed), axis=1) - 1
    x = layers.Embedding(len(CHARACTERS), width, name="characters")(typed)
    x = layers.Add(name="where")([x, layers.Embedding(LENGTH, width, name="places")(places)])
    for number in range(1, blocks + 1):
        name = f"block_{number}"
        normed = layers.RMSNormalization(name=f"{name}_before_attention")(x)
        attention = layers.MultiHeadAttention(HEADS, width // HEADS, name=f"{name}_attention")
        x = layers.Add(name=f"{name}_attended")([x, attention(normed, normed, use_causal_mask=True)])
        normed = layers.RMSNormalization(name=f"{name}_before_mlp")(x)
        wide = layers.Dense(4 * width, activation="gelu", name=f"{name}_up")(normed)
        x = layers.Add(name=f"{name}_out")([x, layers.Dense(width, name=f"{name}_down")(wide)])
    x = layers.RMSNormalization(name="before_head")(x)
    return keras.Model(typed, layers.Dense(len(CHARACTERS), name="head")(x), name="keyboard")


def pretrain(out: Path, steps: int = STEPS, width: int = WIDTH, blocks: int = BLOCKS) -> dict[str, Any]:
    """Trains the base on the plays that are no device's, and writes it, with what it scores beside it.

    Args:
        out: the ``.keras`` file; ``.json`` beside it says how good it is on a play that it has not seen.
        steps: of Adam, with a rate that rises and falls.
        width: of the model.
        blocks: of the model.
    """
    started = time.monotonic()
    text = np.concatenate([encoded("\n".join(line for _, line in speeches(play)) + "\n") for play in BASE_PLAYS])
    model = build(width, blocks)
    rate = keras.optimizers.schedules.CosineDecay(0.0, steps, warmup_target=0.004, warmup_steps=max(1, steps // 20))
    _compile(model, keras.optimizers.Adam(rate))
    drawn = np.random.default_rng(SEED)
    every = max(1, steps // 10)
    for step in range(1, steps + 1):
        starts = drawn.integers(0, len(text) - LENGTH - 1, ROWS)[:, None] + np.arange(LENGTH)
        loss = model.train_on_batch(text[starts], text[starts + 1])[0]
        if step % every == 0:
            print(f"step {step:,} of {steps:,}: loss {loss:.3f}, {time.monotonic() - started:.0f} s", flush=True)
            model.reset_metrics()
    result: dict[str, Any] = {
        "parameters": model.count_params(),
        "characters": len(text),
        "steps": steps,
        "seconds": round(time.monotonic() - started, 1),
    }
    for spelling, folio in (("today", False), ("folio", True)):
        x, y = windows("\n".join(line for _, line in speeches(UNSEEN_PLAY, folio=folio)))
        found = model.evaluate(x, y, batch_size=256, verbose=0, return_dict=True)
        result[spelling] = {name: round(float(value), 4) for name, value in found.items()}
    _compile(model, keras.optimizers.Adam(RATE_OF_ADAPTERS))
    beside = out.with_name(f".{os.getpid()}-{out.name}")  # so that a run that is broken off leaves no half a base
    model.save(beside)
    write_text(out.with_suffix(".json"), json.dumps(result, indent=2) + "\n")
    beside.replace(out)
    return result


def _compile(model: Any, optimizer: Any) -> None:
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(3, name="in_three")],
        jit_compile=False,  # compiling takes longer than it saves
    )
