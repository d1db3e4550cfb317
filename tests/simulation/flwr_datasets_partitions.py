"""Prints as JSON how flwr-datasets divides some rows; run where that is installed, and nothing of edgefl."""

from __future__ import annotations

import json

import numpy as np
from datasets import Dataset
from flwr_datasets import partitioner

random = np.random.default_rng(5)
labels = random.integers(0, 10, 1000)
owners = [f"person-{number:02d}" for number in random.integers(0, 13, 1000)]
quantities = random.normal(size=1000)
shares = random.lognormal(0, 1, (10, 4))
columns = {"row": np.arange(1000), "label": labels, "owner": owners, "quantity": quantities}

MADE = {
    "iid": partitioner.IidPartitioner(7),
    "size": partitioner.SizePartitioner([100, 300, 50]),
    "linear": partitioner.LinearPartitioner(9),
    "square": partitioner.SquarePartitioner(9),
    "exponential": partitioner.ExponentialPartitioner(5),
    "id-to-size-fnc": partitioner.IdToSizeFncPartitioner(6, np.sqrt),
    "natural-id": partitioner.NaturalIdPartitioner("owner"),
    "grouped-natural-id": partitioner.GroupedNaturalIdPartitioner("owner", 4),
    "pathological": partitioner.PathologicalPartitioner(20, "label", 2, "first-deterministic"),
    "shard": partitioner.ShardPartitioner(20, "label", num_shards_per_partition=2),
    "continuous": partitioner.ContinuousPartitioner(8, "quantity", 1.0),
    "distribution": partitioner.DistributionPartitioner(shares, 20, 2, "label", 5),
}


def divided(made):
    made.dataset = Dataset.from_dict(columns)
    return [made.load_partition(number)["row"][:] for number in range(made.num_partitions)]


print(  # noqa: T201
    json.dumps(
        {
            "labels": labels.tolist(),
            "owners": owners,
            "quantities": quantities.tolist(),
            "shares": shares.tolist(),
            "parts": {name: divided(made) for name, made in MADE.items()},
        }
    )
)
