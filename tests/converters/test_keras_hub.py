"""KerasHub's language models at small sizes, with random weights, as its users call them; skipped without the package.

It is no dependency of ours, and its own would come with it. What it needs to be imported, beside the environment:

    pip install --no-deps keras-hub regex kagglehub kagglesdk sentencepiece tokenizers tensorflow-text huggingface-hub
"""

from __future__ import annotations

import keras
import numpy as np
import pytest

import edgefl

hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed")

WORDS, LENGTH = 60, 16
SMALL = {"vocabulary_size": WORDS, "num_layers": 2, "hidden_dim": 32, "intermediate_dim": 64}
GROUPED = {**SMALL, "num_query_heads": 4, "num_key_value_heads": 2}
MODELS = {
    "GPT2": {**SMALL, "num_heads": 2, "max_sequence_length": LENGTH},
    "Llama": GROUPED,
    "Gemma": {**GROUPED, "num_key_value_heads": 1, "head_dim": 8},
    "Mistral": {**GROUPED, "sliding_window": 8},
}
LENGTHS = {"token_ids": (LENGTH,), "padding_mask": (LENGTH,)}


def language_model(name):
    """One of `MODELS`, compiled as its task is for fine-tuning."""
    keras.utils.set_random_seed(1)
    backbone = getattr(hub.models, f"{name}Backbone")(**MODELS[name])
    model = getattr(hub.models, f"{name}CausalLM")(backbone=backbone, preprocessor=None)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, weighted_metrics=[keras.metrics.SparseCategoricalAccuracy()])
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_language_model_converts_whole_and_learns(name, tmp_path):
    result = edgefl.convert(language_model(name), tmp_path / "m.tflite", input_shape=LENGTHS, batch_size=2)
    assert result.report["verification"]["passed"]
    trainer = edgefl.TrainableModel(result.path)
    random = np.random.default_rng(1)
    x = {
        "token_ids": random.integers(0, WORDS, (4, LENGTH)).astype(np.int32),
        "padding_mask": np.ones((4, LENGTH), np.int32),
    }
    losses = trainer.fit(x, np.roll(x["token_ids"], -1, axis=1), epochs=8, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", [each for each in MODELS if each != "Llama"])
def test_adapters_go_to_projections_within_its_attention(name, tmp_path):
    """Not Llama: its decoder cannot say how it was made in KerasHub 0.32, so that there is no copy to adapt."""
    adapters = edgefl.FineTuning(lora_rank=4, lora_targets=["query", "value"])
    model = language_model(name)
    result = edgefl.convert(model, tmp_path / "m.tflite", input_shape=LENGTHS, batch_size=2, fine_tuning=adapters)
    assert result.report["verification"]["passed"]
    assert len(result.manifest.layout.names) == 2 * 2 * 2
    assert not any("lora" in each.path for each in model.weights)
