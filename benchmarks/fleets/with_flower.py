"""Flower's simulation of federated averaging on Ray, a core for each client; clients train with PyTorch or Keras.

    python fleets/with_flower.py pytorch|keras

A client keeps model and rows of its process from one call to the next, which Flower's own examples do not.
"""

from __future__ import annotations

import importlib
import os
import sys

from fleets.job import COHORT, DEVICES, EVALUATED, Job, job_from_environment, read_job, watch_program


def simulate(job: Job, framework: str) -> None:
    """Runs the simulation in this process and those that Ray starts."""
    from flwr.app import ArrayRecord, MetricRecord
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    clients = importlib.import_module(f"fleets.flower_{framework}")
    server = ServerApp()

    @server.main()
    def main(grid, context) -> None:  # type: ignore[no-untyped-def]
        def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord | None:
            if number:
                print("round", flush=True)
            if number == EVALUATED:
                print("accuracy", clients.accuracy(arrays), flush=True)
            return None

        strategy = FedAvg(
            fraction_train=COHORT / DEVICES,
            fraction_evaluate=0.0,
            min_train_nodes=COHORT,
            min_available_nodes=DEVICES,
        )
        # Errors of clients are data for Flower: a run in which all fail ends like any other.
        result = strategy.start(grid, clients.first_arrays(), num_rounds=job.rounds, evaluate_fn=evaluate)
        assert len(result.train_metrics_clientapp) == job.rounds

    run_simulation(
        server,
        clients.app,
        num_supernodes=DEVICES,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            # Its own Ray, also where there is another one on this machine.
            "init_args": {"address": "local", "num_cpus": job.workers, "log_to_driver": False},
        },
    )


if __name__ == "__main__":
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    if "EDGEFL_BENCHMARK_JOB" in os.environ:
        simulate(job_from_environment(), sys.argv[1])
    else:
        watch_program([sys.executable, __file__, sys.argv[1]], read_job())
