"""Reads data sets of Hugging Face and pandas and prints what was found, or what was said, as JSON."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
from datasets import Array2D, ClassLabel, Dataset, DatasetDict, Features, Value

from edgefl.errors import DataError
from edgefl_simulation.data import load_data

FEATURES = {
    "image": Array2D((4, 4), "float32"),
    "label": ClassLabel(names=["a", "b", "c"]),
    "id": Value("string"),
    "text": Value("string"),
}
ROWS = Dataset.from_dict(
    {
        "image": np.arange(50 * 16, dtype=np.float32).reshape(50, 4, 4).tolist(),
        "label": [number % 3 for number in range(50)],
        "id": [f"p{number % 4}" for number in range(50)],
        "text": ["a"] * 50,
    },
    features=Features(FEATURES),
)
CHOSEN = {"features": ("image",), "target": "label"}
GIVEN = {
    "data set": (ROWS, CHOSEN),
    "shuffled": (ROWS.shuffle(seed=1), CHOSEN),
    "splits": (DatasetDict(train=ROWS, test=ROWS.select(range(7))), CHOSEN),
    "iterable": (ROWS.to_iterable_dataset(), CHOSEN),
    "text": (ROWS, {}),
    "ragged": (Dataset.from_dict({"x": [[1.0, 2.0], [3.0]], "y": [0, 1]}), {}),
    "frame": (pd.DataFrame({"a": [1, 2], "b": [1.0, 2.0], "id": ["x", "y"]}), {}),
    "frame with text": (pd.DataFrame({"a": ["u", "v"], "b": [1.0, 2.0]}), {}),
}


def found(data, chosen):
    try:
        read = load_data(data, **chosen)
    except DataError as error:
        return str(error)
    owners = read.owners if read.owner_names is None else read.owner_names[read.owners]
    shapes = {name: [list(array.shape), float(array.sum())] for name, array in read.arrays.items()}
    return {"arrays": shapes, "owners": list(map(str, owners)), "held out": len(read.held_out.get("y", []))}


print(json.dumps({name: found(*given) for name, given in GIVEN.items()}))  # noqa: T201
