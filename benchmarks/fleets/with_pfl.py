"""pfl-research's simulation with PyTorch, a process for each core under torchrun, as its guide for speed says."""

from __future__ import annotations

import os
import sys

from fleets.job import BATCH, COHORT, EVALUATED, LEARNING_RATE, Job, job_from_environment, read_job, watch_program


def simulate(job: Job) -> None:
    """One process of the simulation."""
    from pathlib import Path

    import numpy as np
    import torch
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.aggregate.weighting import WeightByDatapoints
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
    from pfl.metrics import Metrics, Weighted
    from pfl.model.pytorch import PyTorchModel

    from local_steps.torch_models import build, load_weights

    def tensors(x, y):  # type: ignore[no-untyped-def]
        x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))
        return x, torch.from_numpy(np.ascontiguousarray(y)).long()

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = build(job.model)
            load_weights(job.model, self.layers, Path(job.folder))

        def forward(self, x):  # type: ignore[no-untyped-def]
            return self.layers(x)

        def loss(self, x, y, eval=False):  # type: ignore[no-untyped-def]
            return torch.nn.functional.cross_entropy(self(x), y)

        def metrics(self, x, y, eval=False):  # type: ignore[no-untyped-def]
            with torch.no_grad():
                right = (self(x).argmax(1) == y).sum().item()
            return {"accuracy": Weighted(right, len(y))}

    class Tell(TrainingProcessCallback):
        def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):  # type: ignore[no-untyped-def]
            if main:
                print("round", flush=True)
            if main and central_iteration + 1 == EVALUATED:
                x, y = tensors(*job.tests())
                with torch.no_grad():
                    print("accuracy", (net(x).argmax(1) == y).float().mean().item(), flush=True)
            return False, Metrics()

    main = os.environ["RANK"] == "0"
    torch.manual_seed(job.seed)
    np.random.seed(job.seed)
    rows = [tensors(x, y) for x, y in job.rows()]
    data = FederatedDataset.from_slices(rows, get_user_sampler("minimize_reuse", range(len(rows))))
    net = Model()
    optimizer = torch.optim.SGD(net.parameters(), 1.0)
    model = PyTorchModel(net, torch.optim.SGD, optimizer)
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=job.rounds,
            evaluation_frequency=10 * job.rounds,
            train_cohort_size=COHORT,
            val_cohort_size=None,
        ),
        backend=SimulatedBackend(training_data=data, val_data=data, postprocessors=[WeightByDatapoints()]),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_learning_rate=LEARNING_RATE, local_num_epochs=1, local_batch_size=BATCH
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=None),
        callbacks=[Tell()],
    )


if __name__ == "__main__":
    if "RANK" in os.environ:
        simulate(job_from_environment())
    else:
        wanted = read_job()
        run = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={wanted.workers}"]
        watch_program([*run, __file__], wanted)
