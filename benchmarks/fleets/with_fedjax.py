"""FedJAX's federated averaging, as its examples call it: a step that XLA compiles, a round's clients one by one."""

from __future__ import annotations

import fedjax
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from fleets.job import BATCH, COHORT, EVALUATED, LEARNING_RATE, read_job, watched


def forward_pass(name: str) -> hk.Transformed:
    """A model that gives logits."""

    def two_nn(batch: dict[str, jax.Array]) -> jax.Array:
        stack = [hk.Linear(200), jax.nn.relu, hk.Linear(200), jax.nn.relu, hk.Linear(10)]
        return hk.Sequential(stack)(batch["x"])

    def fedavg_cnn(batch: dict[str, jax.Array]) -> jax.Array:
        x = batch["x"]
        for filters in (32, 64):
            x = jax.nn.relu(hk.Conv2D(filters, 5, padding="SAME")(x))
            x = hk.MaxPool((1, 2, 2, 1), (1, 2, 2, 1), "VALID")(x)
        return hk.Sequential([hk.Flatten(), hk.Linear(512), jax.nn.relu, hk.Linear(10)])(x)

    return hk.transform({"2nn": two_nn, "fedavg_cnn": fedavg_cnn}[name])


def main() -> None:
    job = read_job()
    with watched() as watch:
        rows = job.rows()
        data = fedjax.InMemoryFederatedData(
            {f"device-{number:03d}": {"x": x, "y": y} for number, (x, y) in enumerate(rows)}
        )
        model = fedjax.create_model_from_haiku(
            forward_pass(job.model),
            {"x": rows[0][0][:BATCH], "y": rows[0][1][:BATCH]},
            lambda batch, logits: fedjax.metrics.unreduced_cross_entropy_loss(batch["y"], logits),
            {"accuracy": fedjax.metrics.Accuracy()},
        )

        def loss(params, batch, rng):  # type: ignore[no-untyped-def]
            return jnp.mean(model.train_loss(batch, model.apply_for_train(params, batch, rng)))

        algorithm = fedjax.algorithms.fed_avg.federated_averaging(
            jax.jit(jax.grad(loss)),
            fedjax.optimizers.sgd(LEARNING_RATE),
            fedjax.optimizers.sgd(1.0),
            fedjax.ShuffleRepeatBatchHParams(batch_size=BATCH, num_epochs=1, seed=job.seed),
        )
        shapes = model.init(jax.random.PRNGKey(0))
        leaves = iter(job.weights())
        # Haiku names the layers in their order, and has the kernel after the bias in a dict.
        params = {layer: {name: jnp.asarray(next(leaves)) for name in ("w", "b")} for layer in shapes}
        assert jax.tree_util.tree_map(jnp.shape, params) == jax.tree_util.tree_map(jnp.shape, shapes)
        state = algorithm.init(params)
        sampler = fedjax.client_samplers.UniformGetClientSampler(data, COHORT, job.seed)
        x, y = job.tests()
        batches = [{"x": x[at : at + 1000], "y": y[at : at + 1000]} for at in range(0, len(x), 1000)]
        for number in range(job.rounds):
            state, _ = algorithm.apply(state, sampler.sample())
            jax.block_until_ready(state.params)
            watch.round(COHORT)
            if number + 1 == EVALUATED:
                watch.accuracy = float(np.asarray(fedjax.evaluate_model(model, state.params, batches)["accuracy"]))
    watch.finish()


if __name__ == "__main__":
    main()
