"""Evaluation of personalisation: each client trains the given weights on its own data, and is tested before and after.

As TensorFlow Federated has it (`tff.learning.algorithms.build_personalization_eval_computation`; Wang et al. 2019).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgefl.errors import DataError, InvalidSettingError
from edgefl_device_runtime.training import TrainableModel
from edgefl_simulation.draws import drawn_order
from edgefl_simulation.evaluating import Personalisation
from edgefl_simulation.learning.clients import Clients, listed, of_client, read
from edgefl_simulation.learning.keras_models import Model, ReadyModels, model_of
from edgefl_simulation.learning.processes import client_settings
from edgefl_simulation.learning.states import ServerState
from edgefl_simulation.scenario import DEFAULT_SEED

__all__ = ["build_personalization_eval"]

_BASELINE = "baseline_metrics"
_TRAIN, _TEST = "train_data", "test_data"
Values = Mapping[str, float]
PersonalizeFn = Callable[[TrainableModel, Any, Any], Values]
Found = dict[str, dict[str, NDArray[np.float64]]]


def build_personalization_eval(
    model_fn: Callable[[], Model],
    personalize_fn_dict: Mapping[str, Personalisation | Callable[[], PersonalizeFn]],
    baseline_evaluate_fn: Callable[[TrainableModel, Any], Values] | None = None,
    max_num_clients: int = 100,
    *,
    client_optimizer_fn: Callable[[], Any] | None = None,
    seed: int = DEFAULT_SEED,
    num_threads: int = 1,
) -> Callable[[ServerState | Sequence[ArrayLike], Sequence[Mapping[str, Any]]], Found]:
    """Builds an evaluation of what weights are worth to clients who train them further for themselves.

        evaluate = learning.build_personalization_eval(model_fn, {"one epoch": learning.Personalisation(epochs=1)})
        found = evaluate(state.weights, [{"train_data": …, "test_data": …}, …])
        found["baseline_metrics"]["accuracy"], found["one epoch"]["accuracy"]

    Args:
        model_fn: as `build_weighted_fed_avg` takes it.
        personalize_fn_dict: by a name, the training: a `Personalisation`; or a function without arguments that returns
            a function of an `edgefl.TrainableModel` with the weights, the client's data for training and for tests,
            both as they were given. That trains the model, and returns metrics by name.
        baseline_evaluate_fn: the metrics of such a model with the weights as they are, and the data for tests; by
            default loss and metrics as compiled.
        max_num_clients: of more clients so many are drawn.
        client_optimizer_fn: as `build_weighted_fed_avg` takes it.
        seed: of all that is drawn. Not 0.
        num_threads: that a kernel may use.

    Returns:
        A function of the weights (a list as Keras has it, or a state) and of the clients, each a mapping of
        ``train_data`` and ``test_data`` as `LearningProcess.next` takes them. It returns, under ``baseline_metrics``
        and under each name, the metrics by name: float64 ``[clients]``, NaN for clients without data for tests.

    Raises:
        InvalidSettingError: an argument has a value that it cannot have.
        EdgeflError: what ``model_fn`` or the conversion raises.
    """
    if not personalize_fn_dict or _BASELINE in personalize_fn_dict:
        raise InvalidSettingError(
            f"personalize_fn_dict expects at least one name, and none that is {_BASELINE!r}; got "
            f"{', '.join(map(repr, personalize_fn_dict)) or 'none'}."
        )
    for name, each in personalize_fn_dict.items():
        if not isinstance(each, Personalisation) and not callable(each):
            raise InvalidSettingError(
                f"personalize_fn_dict[{name!r}] expects a Personalisation or a function, got {type(each).__name__}."
            )
    if max_num_clients < 1:
        raise InvalidSettingError(f"max_num_clients expects a number above 0, got {max_num_clients}.")
    models = ReadyModels(model_of(model_fn, client_optimizer_fn), num_threads)
    settings = client_settings(models, None, 1, seed)
    ways = {name: each if isinstance(each, Personalisation) else each() for name, each in personalize_fn_dict.items()}

    def evaluate(model_weights: ServerState | Sequence[ArrayLike], clients: Sequence[Mapping[str, Any]]) -> Found:
        given = model_weights.weights if isinstance(model_weights, ServerState) else model_weights
        vector = models.keras.vector(given, models.weights.size)
        work = Clients(models, vector, 0, settings)
        known = listed(clients, "The evaluation")
        drawn = sorted(itertools.islice(drawn_order(len(known), seed, "personalization"), max_num_clients))
        found: list[dict[str, Values]] = []
        for number in drawn:
            with of_client(number):
                found.append(_of_client(work, *known[number], ways, baseline_evaluate_fn))
        return {way: _columns([each.get(way, {}) for each in found]) for way in (_BASELINE, *ways)}

    return evaluate


def _of_client(
    work: Clients,
    name: str,
    given: Any,
    ways: Mapping[str, Personalisation | PersonalizeFn],
    baseline: Callable[[TrainableModel, Any], Values] | None,
) -> dict[str, Values]:
    """The metrics of one client, by the way in which it trained; nothing where it has no data for tests."""
    if not isinstance(given, Mapping) or not {_TRAIN, _TEST} <= given.keys():
        raise DataError(f"A client expects a mapping of {_TRAIN} and {_TEST}, got {type(given).__name__}.")
    training, test = read(work.models, given[_TRAIN], _TRAIN), read(work.models, given[_TEST], _TEST)
    if test is None:
        return {}
    as_it_is = work.values(work.evaluate(name, test))
    found: dict[str, Values] = {_BASELINE: baseline(work.model(), given[_TEST]) if baseline else as_it_is}
    for way, how in ways.items():
        if not isinstance(how, Personalisation):
            found[way] = how(work.model(), given[_TRAIN], given[_TEST])
        elif training is None:
            found[way] = as_it_is
        else:
            found[way] = work.values(work.evaluate_tuned(name, training, test, how))
    return found


def _columns(clients: Sequence[Values]) -> dict[str, NDArray[np.float64]]:
    """Each metric of all clients; NaN for those that have none."""
    names = dict.fromkeys(name for each in clients for name in each)
    return {name: np.array([float(each.get(name, np.nan)) for each in clients]) for name in names}
