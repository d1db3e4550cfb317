"""The versions of the weights that somebody still starts from, as an engine has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefl.hashing import weights_hash
from edgefl.wire.messages import ExtraVector
from edgefl_server.aggregation import Blob, Demand, StrategyState, TaskSource, named_vectors
from edgefl_simulation.engines import Engine
from edgefl_simulation.engines.base import WEIGHTS
from edgefl_simulation.plans import Plan

__all__ = ["Version", "Versions"]


@dataclass(eq=False)
class Version:
    """Weights that tasks start from.

    Attributes:
        number: counted from 0.
        source: what the tasks that start from it have in common, but for cohort and fold.
        base: its number among the engine's published vectors.
        state: themselves, with the slots that tasks name; the engine may have it as a copy.
        users: tasks that started from it and are neither over nor folded, and one while it is the newest.
    """

    number: int
    source: TaskSource
    base: int
    state: StrategyState
    users: int = 1

    @property
    def weights(self) -> NDArray[np.float32]:
        """The weights themselves."""
        return self.state.weights


class Versions:
    """Publishes weights, and takes them back when nobody needs them any more.

    Args:
        plan: what is simulated.
        engine: to publish them to.
        demand: what the strategy asks of devices.
    """

    def __init__(self, plan: Plan, engine: Engine, demand: Demand) -> None:
        self._plan, self._engine, self._demand = plan, engine, demand

    def publish(self, number: int, state: StrategyState) -> Version:
        """Makes a state's weights, and the slots that tasks name, something to start from."""
        plan = self._plan
        weights = state.weights.astype("<f4", copy=False)
        hashes = {name: weights_hash(vector) for name, vector in state.slots.items() if name in self._demand.vectors}
        vectors = named_vectors(self._demand, hashes)
        source = TaskSource(
            plan.population,
            plan.run,
            number,
            0,
            0,
            plan.model,
            plan.manifest.graph_hash,
            plan.manifest.layout_hash,
            Blob(weights_hash(weights), weights.nbytes),
            tuple(ExtraVector(name, digest, state.slots[name].nbytes) for name, digest in vectors.items()),
        )
        slots = {name: state.slots[name] for name in vectors}
        base = self._engine.publish({WEIGHTS: weights, **slots})
        return Version(number, source, base, StrategyState(state.weights, state.weight_size, slots))

    def publish_again(self, states: Mapping[int, StrategyState], newest: Version) -> dict[int, Version]:
        """Makes of the states of earlier versions something to start from again, of which nobody is a user yet."""
        found = {number: self.publish(number, state) for number, state in states.items() if number != newest.number}
        for each in found.values():
            each.users = 0
        return {**found, newest.number: newest}

    def leave(self, version: Version) -> None:
        """Says that one of its users does not need a version any more."""
        version.users -= 1
        if version.users == 0:
            self._engine.retire(version.base)
