"""The way down: devices are told by how much the weights have changed, and nothing that was learnt is lost by it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgefl.errors import InvalidSettingError
from edgefl.wire.differences import split
from edgefl_server.aggregation import (
    Folded,
    RunSettings,
    StrategyState,
    broadcast,
    difference_bytes,
    without_residual,
)

SIZE, STATISTICS = 5000, 3


def settings_with(codec: str) -> RunSettings:
    return RunSettings(rounds=9, target=1, seed=4, down_codec=codec)


def folded(before: StrategyState, change: np.ndarray) -> Folded:
    """What a strategy makes that adds a change, and has a slot of its own."""
    after = (without_residual(before).weights + change).astype(np.float32)
    return Folded(StrategyState(after, SIZE, {"control": change[:SIZE]}), 1, {}, {"update_norm": 1.0})


def changes(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [(0.01 * random.standard_t(4, SIZE + STATISTICS)).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize("codec", ["float16", "int8", "drive", "eden-2", "stc-0.04"])
def test_a_version_is_what_the_differences_add_up_to_and_what_they_leave_out_comes_later(codec: str) -> None:
    settings = settings_with(codec)
    state = StrategyState(np.ones(SIZE + STATISTICS, np.float32), SIZE)
    held, exact, behind = state.weights, state.weights.astype(np.float64), []
    for number, change in enumerate(changes(40), 1):
        result, difference = broadcast(settings, state, folded(state, change), number)
        assert difference is not None
        assert len(difference.encode()) == difference_bytes(settings, SIZE, STATISTICS)
        exact += change
        state, held = result.state, difference.applied(held)
        np.testing.assert_array_equal(held, state.weights)  # to the last bit
        np.testing.assert_allclose(held[SIZE:], exact[SIZE:], rtol=1e-5)
        assert set(without_residual(state).slots) == {"control"}
        residual = state.slots["broadcast_residual"]
        np.testing.assert_allclose(held[:SIZE] + residual, exact[:SIZE], atol=1e-4)
        behind.append(np.linalg.norm(residual) / np.linalg.norm(change[:SIZE]))
    # What devices have not been told yet does not grow from round to round.
    assert np.mean(behind[30:]) < 1.2 * np.mean(behind[20:30])


def test_whole_weights_are_left_as_they_are_and_so_is_what_is_not_finite() -> None:
    state = StrategyState(np.ones(SIZE + STATISTICS, np.float32), SIZE)
    result = folded(state, changes(1)[0])
    assert broadcast(settings_with("float32"), state, result, 1) == (result, None)
    assert difference_bytes(settings_with("float32"), SIZE, STATISTICS) == 0
    broken = replace(result, state=replace(result.state, weights=np.full(SIZE + STATISTICS, np.nan, np.float32)))
    assert broadcast(settings_with("drive"), state, broken, 1) == (broken, None)


def test_equal_folds_give_equal_bytes_and_other_versions_draw_anew() -> None:
    state = StrategyState(np.ones(SIZE + STATISTICS, np.float32), SIZE)
    result = folded(state, changes(1)[0])

    def told(version: int) -> bytes:
        difference = broadcast(settings_with("drive"), state, result, version)[1]
        assert difference is not None
        return difference.encode()

    assert told(1) == told(1)
    assert told(1) != told(2)
    assert split(len(told(1)).to_bytes(4, "little") + told(1))[0].codec == "drive"


@pytest.mark.parametrize("codec", ["rand-0.25+drive", "auto", "zip", "rand-0.5+float32"])
def test_a_codec_whose_error_would_grow_from_round_to_round_is_refused(codec: str) -> None:
    with pytest.raises(InvalidSettingError, match=r"down_codec expects one of .*drive"):
        settings_with(codec)
