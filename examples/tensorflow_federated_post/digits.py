"""Handwritten digits as TensorFlow Federated has its EMNIST: a dataset for each client."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgefl_simulation import load_data

__all__ = ["Source", "load_source"]


class Source:
    """Images of 8 × 8 pixels, which ten clients share.

    Args:
        pixels: float32 ``[rows, 8, 8]`` from 0 to 1.
        labels: int32 ``[rows]``.
        clients: how many.
    """

    def __init__(self, pixels: Any, labels: Any, clients: int = 10) -> None:
        self._pixels, self._labels = np.array_split(pixels, clients), np.array_split(labels, clients)
        self.client_ids = [f"client-{number}" for number in range(clients)]

    def create_tf_dataset_for_client(self, client_id: str) -> Any:
        """A dataset of single rows, with ``pixels`` and ``label``."""
        import tensorflow as tf

        number = self.client_ids.index(client_id)
        return tf.data.Dataset.from_tensor_slices({"pixels": self._pixels[number], "label": self._labels[number]})


def load_source() -> Source:
    """The 1,797 digits of scikit-learn, in their order."""
    arrays = load_data("digits").arrays
    return Source(arrays["x"][..., 0], arrays["y"])
