"""Learning processes: a state, and the function from there and the clients' data to the next one."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from numpy.typing import ArrayLike, NDArray

from edgefl.errors import DataError, InvalidSettingError, RunError
from edgefl_server.aggregation import (
    Believed,
    Cohort,
    ModelLimits,
    RunSettings,
    SettingError,
    StrategyState,
    fold,
    in_order,
    settle,
)
from edgefl_simulation.learning.averaging import Averaging, ClientWeighting, ServerOptimizer, server_optimizer
from edgefl_simulation.learning.clients import Clients, Sums, listed, of_client, read
from edgefl_simulation.learning.kept_updates import KeptUpdates
from edgefl_simulation.learning.keras_models import Model, ReadyModels, model_of
from edgefl_simulation.learning.metrics import Metrics
from edgefl_simulation.learning.states import ServerState
from edgefl_simulation.scenario import DEFAULT_SEED

__all__ = [
    "LearningProcess",
    "LearningProcessOutput",
    "build_fed_eval",
    "build_federated_averaging_process",
    "build_unweighted_fed_avg",
    "build_weighted_fed_avg",
    "client_settings",
]

_ALL = 2**53
"""More examples than anybody has: these clients are not strangers, and count for what they say."""
_SMALLER = "A smaller learning rate may help."
_CALLED = {"learning_rate": "client_learning_rate"}
ModelFn = Callable[[], Model]
OptimizerFn = Callable[[], Any]


class LearningProcessOutput(NamedTuple):
    """A round that is over: ``state, metrics = process.next(state, data)``.

    Attributes:
        state: after it.
        metrics: of the clients, see `Metrics`.
    """

    state: ServerState
    metrics: Metrics


class LearningProcess(ABC):
    """A state, and what becomes of it with the data of clients. Nothing that it is given is changed.

    Args:
        models: does the clients' work.
        strategy: makes the first state, and the next ones.
        settings: of the clients' training.
    """

    def __init__(self, models: ReadyModels, strategy: Averaging, settings: RunSettings) -> None:
        self._models, self._strategy, self._settings = models, strategy, settings

    def initialize(self) -> ServerState:
        """The state before the first round: the weights of the model that ``model_fn`` returned."""
        return self._state(0, self._strategy.init(self._models.weights.copy(), self._weight_size))

    @abstractmethod
    def next(self, state: ServerState, data: Sequence[Any]) -> LearningProcessOutput:
        """One round. The same arguments give the same bits.

        Args:
            state: what it starts from.
            data: of each client: a ``tf.data`` dataset of batches or a list of batches, which are taken as they come;
                or arrays ``(x, y)``, of which every client makes shuffled batches as large as the sample.

        Raises:
            DataError: the state is another model's, or a client's data does not fit the model.
            EdgeflError: what a client's work raises.
        """

    def get_model_weights(self, state: ServerState) -> list[NDArray[Any]]:
        """The weights of a state, as a Keras model of ``model_fn`` takes them in ``set_weights``."""
        return self._checked(state).weights

    def set_model_weights(self, state: ServerState, weights: Sequence[ArrayLike]) -> ServerState:
        """The state with other weights.

        Args:
            state: keeps everything else.
            weights: as a Keras model of ``model_fn`` returns them from ``get_weights``.

        Raises:
            DataError: they are not this model's.
        """
        vector = self._models.keras.vector(weights, self._models.weights.size)
        return self._state(self._checked(state).round, replace(state.strategy, weights=vector))

    @property
    def _weight_size(self) -> int:
        return self._models.manifest.layout.weight_size

    def _state(self, number: int, strategy: StrategyState) -> ServerState:
        return ServerState(number, strategy, self._models.keras, self._models.manifest.layout_hash)

    def _checked(self, state: ServerState) -> ServerState:
        if not isinstance(state, ServerState):
            raise DataError(
                f"Expected a state of this process, got {type(state).__name__}.", hint="Begin with initialize()."
            )
        if state.layout_hash != self._models.manifest.layout_hash:
            raise DataError(
                "The state is another model's.", hint="Begin with initialize(), or load a state of this one."
            )
        other = state.keras.differs(self._models.keras)
        if other:
            raise DataError(
                f"The weight {other!r} is not trained, and has another value than in the model that model_fn made.",
                hint="Let model_fn make it with the same values each time, as by keras.utils.set_random_seed(1).",
            )
        first = self._strategy.optimizer.init(self._weight_size)
        if {name: slot.shape for name, slot in first.items()} != {
            name: slot.shape for name, slot in state.strategy.slots.items()
        }:
            raise DataError(
                "The state has what another server optimizer remembers.",
                hint="Begin with initialize(), and give it the weights: set_model_weights(state, weights).",
            )
        return state

    def _clients(self, state: ServerState) -> Clients:
        state = self._checked(state)
        return Clients(self._models, state.strategy.weights, state.round, self._settings)


class _Averaging(LearningProcess):
    """Trains, and averages what clients changed."""

    def next(self, state: ServerState, data: Sequence[Any]) -> LearningProcessOutput:
        """See `LearningProcess`."""
        clients, given, diverged = self._clients(state), listed(data, "next"), 0
        with KeptUpdates() as updates:
            for number, (name, own) in enumerate(given):
                with of_client(number):
                    client = read(self._models, own)
                    update = None if client is None else clients.update(name, client)
                if update is not None:
                    updates.add(update)
                elif client is not None:
                    diverged += 1
            if diverged:
                _tell(diverged, len(given), any_others=len(updates) > 0)
            folded = fold(
                self._strategy,
                state.strategy,
                in_order(updates.contributions),
                Believed(_ALL, 0, ModelLimits.of(self._models.manifest), self._models.manifest.metrics),
                Cohort(len(given)),
            )
        if not folded.is_finite:
            raise RunError("The weights after the round have NaN or infinity.", hint=_SMALLER)
        metrics = Metrics({**clients.values(folded.metric_sums), "num_examples": folded.num_examples})
        return LearningProcessOutput(self._state(state.round + 1, folded.state), metrics)


_OF_A_RUN = {"model_aggregator": "codec", "model_distributor": "down_codec", "metrics_aggregator": ""}
"""The arguments of TensorFlow Federated's, and what is like them elsewhere."""


class _Evaluation(LearningProcess):
    """Evaluates, and changes no weights."""

    def next(self, state: ServerState, data: Sequence[Any]) -> LearningProcessOutput:
        """See `LearningProcess`; batches are of no importance here."""
        clients, sums, examples = self._clients(state), Sums(), 0
        for number, (name, own) in enumerate(listed(data, "next")):
            with of_client(number):
                client = read(self._models, own)
                if client is not None:
                    sums = clients.evaluate(name, client, sums)
                    examples += client.rows
        metrics = Metrics({**clients.values(sums), "num_examples": examples})
        return LearningProcessOutput(self._state(state.round + 1, state.strategy), metrics)


def build_weighted_fed_avg(
    model_fn: ModelFn,
    client_optimizer_fn: OptimizerFn | None = None,
    server_optimizer_fn: OptimizerFn | ServerOptimizer | None = None,
    *,
    client_learning_rate: float | None = None,
    client_weighting: ClientWeighting = ClientWeighting.NUM_EXAMPLES,
    epochs: int = 1,
    seed: int = DEFAULT_SEED,
    num_threads: int = 1,
    **others: Any,
) -> LearningProcess:
    """Builds federated averaging (McMahan et al. 2017; with a server optimizer Reddi et al. 2021).

        trainer = learning.build_weighted_fed_avg(model_fn)
        state = trainer.initialize()
        state, metrics = trainer.next(state, train_data)

    Args:
        model_fn: a function without arguments that makes and compiles a Keras model and returns
            `from_compiled_keras_model` of it. It is called once.
        client_optimizer_fn: a function without arguments that returns the clients' Keras optimizer; by default the one
            that the model was compiled with. Every client begins with a fresh one in every round.
        server_optimizer_fn: the server's: a `ServerOptimizer`, or a function that returns one, or a Keras optimizer
            that the server has the like of; by default the weights become the clients' average.
        client_learning_rate: of the clients' steps; by default their optimizer's.
        client_weighting: how much each counts.
        epochs: passes over each client's data; a dataset may also repeat itself.
        seed: of all that is drawn: the order of rows of clients who are arrays, and dropout. Not 0.
        num_threads: that a kernel may use.
        others: what only a run has, which is refused by name.

    Raises:
        InvalidSettingError: an argument has a value that it cannot have, or is one of a run.
        DataError: the sample batch does not fit the model.
        EdgeflError: what ``model_fn`` or the conversion raises.
    """
    _refuse(others)
    optimizer = server_optimizer(server_optimizer_fn)
    models = ReadyModels(model_of(model_fn, client_optimizer_fn), num_threads)
    settings = client_settings(models, client_learning_rate, epochs, seed)
    strategy = Averaging(server_optimizer=optimizer, clients=ClientWeighting(client_weighting))
    return _Averaging(models, strategy, settings)


def build_federated_averaging_process(
    model_fn: ModelFn,
    client_optimizer_fn: OptimizerFn | None = None,
    server_optimizer_fn: OptimizerFn | ServerOptimizer | None = None,
    **settings: Any,
) -> LearningProcess:
    """Builds federated averaging, under the name that it had in 2019; see `build_weighted_fed_avg`."""
    return build_weighted_fed_avg(model_fn, client_optimizer_fn, server_optimizer_fn, **settings)


def build_unweighted_fed_avg(
    model_fn: ModelFn,
    client_optimizer_fn: OptimizerFn | None = None,
    server_optimizer_fn: OptimizerFn | ServerOptimizer | None = None,
    **settings: Any,
) -> LearningProcess:
    """Builds federated averaging in which every client counts the same; see `build_weighted_fed_avg`."""
    settings = {**settings, "client_weighting": ClientWeighting.UNIFORM}
    return build_weighted_fed_avg(model_fn, client_optimizer_fn, server_optimizer_fn, **settings)


def build_fed_eval(model_fn: ModelFn, *, num_threads: int = 1) -> LearningProcess:
    """Builds federated evaluation: the metrics over all clients' examples, each of which counts the same.

        evaluator = learning.build_fed_eval(model_fn)
        state = evaluator.set_model_weights(evaluator.initialize(), trainer.get_model_weights(trained))
        metrics = evaluator.next(state, test_data).metrics

    Args:
        model_fn: as `build_weighted_fed_avg` takes it.
        num_threads: that a kernel may use.

    Raises:
        DataError: the sample batch does not fit the model.
        EdgeflError: what ``model_fn`` or the conversion raises.
    """
    models = ReadyModels(model_of(model_fn), num_threads)
    return _Evaluation(models, Averaging(), RunSettings.of(rounds=1, target=1, seed=DEFAULT_SEED))


def client_settings(models: ReadyModels, learning_rate: float | None, epochs: int, seed: int) -> RunSettings:
    """The settings of clients' training, as a run has them.

    Raises:
        InvalidSettingError: one has a value that it cannot have.
    """
    try:
        settings = RunSettings.of(rounds=1, target=1, epochs=epochs, learning_rate=learning_rate, seed=seed)
        return settle(settings, models.manifest)
    except SettingError as error:
        raise error.naming(lambda name: _CALLED.get(name, name)) from error


def _refuse(others: dict[str, Any]) -> None:
    for name in others:
        instead = _OF_A_RUN.get(name, name)
        if instead not in {*vars(RunSettings(rounds=1, target=1)), ""}:
            raise TypeError(f"build_weighted_fed_avg() got an unexpected keyword argument {name!r}")
        raise InvalidSettingError(
            f"{name} has no meaning here, where clients and server are one process, and nothing is sent.",
            hint=f"edgefl.simulate(…, {instead}=…) emulates a fleet with it." if instead else "Leave it out.",
        )


def _tell(diverged: int, clients: int, *, any_others: bool) -> None:
    if not any_others:
        raise RunError(f"Training diverged for all {diverged} clients that have data.", hint=_SMALLER)
    warnings.warn(f"Training diverged for {diverged} of {clients} clients; they are left out.", stacklevel=3)
