"""The manifest of a model that there is no file of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgefl.layout import Parameter
from edgefl.manifest import ModelManifest, Signature, Target, TensorSpec

__all__ = ["make_manifest"]


def make_manifest(**changes: Any) -> ModelManifest:
    """Images of two numbers, in batches of 4, and one weight matrix and one statistic."""
    parameters = (Parameter("dense/kernel", "s/dense/kernel", (2, 1)), Parameter("mean", "s/mean", (1,), "statistic"))
    train = Signature(
        inputs=(
            TensorSpec("image", "image", (4, 2), "float32"),
            TensorSpec("label", "label", (4,), "int32"),
            TensorSpec("sample_weight", "sample_weight", (4,), "float32"),
        )
    )
    manifest = ModelManifest(
        parameters=parameters,
        signatures={"train": train, "evaluate": train},
        inputs=("image",),
        outputs=("probabilities",),
        targets=(Target("label", "probabilities", 3),),
        batch_size=4,
    )
    return replace(manifest, layout_hash=manifest.layout.hash, graph_hash="9" * 64, **changes)
