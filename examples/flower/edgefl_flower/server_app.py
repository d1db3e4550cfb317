"""The server: Flower's FedAvg from the weights in the model file, tested on rows that no device has."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from edgefl_flower.task import arrays_of, held_out, load, set_arrays

app = ServerApp()


class FedAvgOfAnswers(FedAvg):
    """FedAvg that ends when nobody answers: Flower itself calls a run in which every device fails a success."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Averages what was trained.

        Raises:
            RuntimeError: every device of the round failed.
        """
        replies = list(replies)
        arrays, metrics = super().aggregate_train(server_round, replies)
        if arrays is None:
            reasons = sorted({each.error.reason or "no reason" for each in replies if each.has_error()})
            raise RuntimeError(f"Round {server_round}: none of {len(replies)} devices trained. {'; '.join(reasons)}")
        return arrays, metrics


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Does the rounds, and writes `weights.npy` and `accuracy.json`."""
    settings = context.run_config
    data = Path(str(settings["model"])).read_bytes()
    model = load(data)
    initial = arrays_of(model)
    shape = {each.name: each.shape for each in model.manifest.signatures["train"].inputs}[model.manifest.inputs[0]]
    x, y = held_out(str(settings["data"]), tuple(shape[1:]))

    def central(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        set_arrays(model, arrays)
        return MetricRecord(model.evaluate(x, y))

    strategy = FedAvgOfAnswers(fraction_train=float(settings["fraction-train"]), fraction_evaluate=0.0)
    result = strategy.start(
        grid,
        initial,
        num_rounds=int(settings["num-server-rounds"]),
        train_config=ConfigRecord(
            {
                "model": data,
                "epochs": int(settings["local-epochs"]),
                "learning-rate": float(settings["learning-rate"]),
                "seed": int(settings["seed"]),
            }
        ),
        evaluate_fn=central,
    )
    out = Path(str(settings["out"]))
    out.mkdir(parents=True, exist_ok=True)
    set_arrays(model, result.arrays)
    np.save(out / "weights.npy", model.weights)
    rounds = {number: dict(metrics) for number, metrics in result.evaluate_metrics_serverapp.items()}
    (out / "accuracy.json").write_text(json.dumps(rounds, indent=1) + "\n", encoding="utf-8")
