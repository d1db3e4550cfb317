"""The way down: the weights that devices start from, where they are told by how much these have changed.

What a codec leaves out of one step is added to the next (error feedback; on the server's side as in Tang et al. 2019,
"DoubleSqueeze", Algorithm 1, and in Sattler et al. 2019, Algorithm 3). The weights of a version *are* what the
differences add up to, to the last bit, so that it does not matter who has come to it by which way.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgefl.wire.differences import Difference
from edgefl_server.aggregation.folding import Folded
from edgefl_server.aggregation.seeds import codec_seed
from edgefl_server.aggregation.settings import RunSettings
from edgefl_server.aggregation.strategies import StrategyState
from edgefl_server.aggregation.update_codecs import WHOLE

__all__ = ["broadcast", "difference_bytes", "without_residual"]

_RESIDUAL = "broadcast_residual"
"""The slot with what devices have not been told yet."""


def without_residual(state: StrategyState) -> StrategyState:
    """The state as its strategy knows it."""
    return replace(state, slots={name: slot for name, slot in state.slots.items() if name != _RESIDUAL})


def broadcast(
    settings: RunSettings, before: StrategyState, folded: Folded, version: int
) -> tuple[Folded, Difference | None]:
    """Makes of what a fold leaves the version that devices are told.

    Args:
        settings: the run's.
        before: the version before.
        folded: what the strategy made of it, without its residual.
        version: the number of the new one.

    Returns:
        The same with the weights of the version, and the residual among its slots; and the difference to the version
        before, None where devices fetch whole weights or what was folded is not finite.

    Raises:
        CodecError: the codec fails.
    """
    if settings.down_codec == WHOLE or not folded.is_finite:
        return folded, None
    after, size = folded.state, before.weight_size
    told = before.weights.astype(np.float64)[:size]
    wanted = after.weights[:size] + before.slots.get(_RESIDUAL, np.zeros(size, np.float32)).astype(np.float64)
    seed = codec_seed(settings.effective_seed, f"version {version}")
    change = (wanted - told).astype(np.float32)
    difference = Difference.of(change, after.weights[size:], settings.down_codec, seed)
    weights = difference.applied(before.weights)
    residual = (wanted - weights[:size]).astype(np.float32)
    state = replace(after, weights=weights, slots={**after.slots, _RESIDUAL: residual})
    norm = float(np.sqrt(np.sum(np.square(residual, dtype=np.float64))))
    return replace(folded, state=state, diagnostics={**folded.diagnostics, "residual_norm": norm}), difference


def difference_bytes(settings: RunSettings, weight_size: int, statistic_size: int) -> int:
    """Says how many bytes a difference takes, whatever it says; 0 where there are none.

    Args:
        settings: the run's.
        weight_size: elements of the layout's weight section.
        statistic_size: of its statistic section.
    """
    if settings.down_codec == WHOLE:
        return 0
    nothing = np.zeros(weight_size, np.float32), np.zeros(statistic_size, np.float32)
    return len(Difference.of(*nothing, settings.down_codec, 0).encode())
