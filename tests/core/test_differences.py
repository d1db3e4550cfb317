"""Differences between versions of the weights: exact, and no harm from what is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgefl.codecs import decoded
from edgefl.errors import CodecError, MessageError
from edgefl.wire.differences import LONGEST_CHAIN, Difference, join, split

RANDOM = np.random.default_rng(3)
WEIGHTS = RANDOM.normal(size=305).astype(np.float32)
STATISTICS = np.array([1.0, 0.25, 1e-9, 7.0, -0.0], np.float32)


def step(codec: str = "drive", seed: int = 5) -> Difference:
    return Difference.of(0.01 * WEIGHTS[:300], STATISTICS, codec, seed)


@pytest.mark.parametrize("codec", ["drive", "float16", "int8", "stc-0.04", "eden-4"])
def test_a_difference_leads_to_the_same_weights_to_the_last_bit(codec: str) -> None:
    made = step(codec, 2**64 - 1)
    found = made.applied(WEIGHTS)
    change = decoded(codec, made.payload, 300, 2**64 - 1)
    np.testing.assert_array_equal(found[:300], WEIGHTS[:300] + change)
    assert found[300:].tobytes() == STATISTICS.tobytes()
    (read,) = split(join([made.encode()]))
    assert read == made
    assert read.applied(WEIGHTS).tobytes() == found.tobytes()


def test_several_are_applied_one_after_the_other() -> None:
    made = [step(seed=seed) for seed in range(LONGEST_CHAIN)]
    weights, again = WEIGHTS, WEIGHTS
    for one, other in zip(made, split(join(each.encode() for each in made)), strict=True):
        weights, again = one.applied(weights), other.applied(again)
    assert weights.tobytes() == again.tobytes()
    assert split(b"") == []
    with pytest.raises(MessageError, match="one after the other"):
        split(join(each.encode() for each in [*made, made[0]]))


def test_a_difference_between_other_weights_is_refused() -> None:
    with pytest.raises(CodecError, match="expects 305 elements to start from, got 300"):
        step().applied(WEIGHTS[:300])


def test_a_codec_that_is_not_there_is_refused() -> None:
    with pytest.raises(CodecError, match="zip"):
        replace(step(), codec="zip").applied(WEIGHTS)


WHOLE = join([step().encode(), step("int8").encode()])


@settings(max_examples=300)
@given(st.integers(0, len(WHOLE)), st.integers(0, len(WHOLE) - 1), st.integers(0, 255), st.binary(max_size=40))
def test_damaged_bytes_are_refused_or_lead_to_weights_of_the_same_size(
    end: int, place: int, value: int, more: bytes
) -> None:
    hostile = bytearray(WHOLE)
    hostile[place] = value
    for data in (WHOLE[:end], bytes(hostile), WHOLE + more, more):
        found: NDArray[np.float32] = WEIGHTS
        try:
            for each in split(data):
                found = each.applied(found)
        except (MessageError, CodecError):
            continue
        assert found.shape == WEIGHTS.shape
