"""What the codecs that lose something promise: no bias, the errors of their papers, no harm from hostile bytes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from edgefl.codecs import codec, codec_parts, codec_spellings, decoded, encoded, encoded_bytes, is_codec, part_names
from edgefl.codecs.eden import CENTROIDS
from edgefl.codecs.randomness import Draws, Purpose
from edgefl.codecs.rotation import padded_size, pieces, rotated, turned_back
from edgefl.errors import CodecError
from edgefl.wire.messages import Section

Vector = NDArray[np.float32]

UNBIASED = ["int8", "drive", "eden-2", "eden-3", "eden-4", "rand-0.25+drive", "rand-0.1+int8", "rand-0.5+float32"]
LOSSY = [*UNBIASED, "rand-0.25+float16", "rand-0.0625+eden-2", "stc", "stc-0.04", "stc-0.5"]
SIZES = st.one_of(st.integers(0, 40), st.sampled_from([4095, 4096, 4097, 12_345, 65_537]))


def drawn(size: int, seed: int = 1) -> Vector:
    """Numbers with heavy tails, like those of updates."""
    return np.random.default_rng(seed).standard_t(4, size).astype(np.float32)


def error(name: str, vector: Vector, seed: int) -> float:
    """The squared error relative to the squared norm."""
    off = decoded(name, encoded(name, vector, seed), vector.size, seed).astype(np.float64) - vector
    return float(np.sum(np.square(off)) / np.sum(np.square(vector, dtype=np.float64)))


@pytest.mark.parametrize("name", UNBIASED)
def test_the_mean_over_seeds_comes_to_the_vector_at_the_statistical_rate(name: str) -> None:
    assert codec(name).unbiased
    vector, many = drawn(5000), 400
    mean, one = np.zeros(vector.size), 0.0
    for seed in range(many):
        found = decoded(name, encoded(name, vector, seed), vector.size, seed)
        mean += found.astype(np.float64) / many
        one += float(np.sum(np.square(found.astype(np.float64) - vector))) / many
    left = float(np.sum(np.square(mean - vector)))
    # Of independent errors, the squared mean is a 400th of the mean square; a bias of 5 % of one error would show.
    assert 0.9 < left * many / one < 1.1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("drive", math.pi / 2 - 1),
        ("eden-2", 1 / (1 - 0.1174818) - 1),
        ("eden-3", 1 / (1 - 0.0345478) - 1),
        ("eden-4", 1 / (1 - 0.0095010) - 1),
        ("rand-0.25+drive", 4 * math.pi / 2 - 1),
        ("rand-0.25+float32", 3.0),
    ],
)
def test_the_squared_error_is_the_papers(name: str, expected: float) -> None:
    vector = drawn(8 * 4096)
    found = np.mean([error(name, vector, seed) for seed in range(20)])
    assert found == pytest.approx(expected, rel=0.02)


def test_edens_numbers_are_where_the_squared_error_of_a_normal_is_least() -> None:
    def density(x: float) -> float:
        return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)

    def below(x: float) -> float:
        return (1 + math.erf(x / math.sqrt(2))) / 2

    for bits, positive in CENTROIDS.items():
        assert len(positive) == 2 ** (bits - 1)
        between = [(one + other) / 2 for one, other in itertools.pairwise(positive)]
        edges = [0.0, *between, 40.0]
        means = [(density(low) - density(high)) / (below(high) - below(low)) for low, high in itertools.pairwise(edges)]
        assert positive == pytest.approx(means, abs=2e-7)


@pytest.mark.parametrize("name", ["drive", "eden-2"])
def test_the_component_along_the_vector_is_exact_whatever_the_vector(name: str) -> None:
    for vector in (np.eye(1, 4096, 7, dtype=np.float32)[0], np.ones(100, np.float32), drawn(4096 + 72)):
        found = decoded(name, encoded(name, vector, 5), vector.size, 5)
        assert np.dot(found.astype(np.float64), vector) == pytest.approx(np.dot(vector, vector), rel=1e-5)


@pytest.mark.parametrize(("count", "most"), [(64, 0.03), (8, 0.25), (2, 0.96)])
def test_of_few_elements_that_are_not_0_in_a_block_the_mean_of_drive_is_off(count: int, most: float) -> None:
    random = np.random.default_rng(count)
    vector = np.zeros(4096, np.float32)
    vector[random.choice(vector.size, count, replace=False)] = random.normal(size=count)
    halves = [
        np.mean([decoded("drive", encoded("drive", vector, seed), vector.size, seed) for seed in seeds], axis=0)
        - vector
        for seeds in (range(300), range(300, 600))
    ]
    bias = np.sqrt(max(0.0, float(halves[0] @ halves[1]))) / np.linalg.norm(vector)  # chance has no say in that
    assert bias < most
    if count == 2:
        places = np.argsort(-np.abs(vector))[:2]
        np.testing.assert_allclose((vector + halves[0])[places[1]] / vector[places[1]], 0, atol=0.3)


def test_int8_errs_by_less_than_a_step_and_keeps_zeros() -> None:
    vector = drawn(10_000)
    vector[::7] = 0
    found = decoded("int8", encoded("int8", vector, 3), vector.size, 3)
    steps = np.repeat([np.abs(vector[start : start + 4096]).max() / 127 for start in range(0, vector.size, 4096)], 4096)
    assert np.all(np.abs(found - vector) < 1.0001 * steps[: vector.size])
    assert not found[::7].any()


@pytest.mark.parametrize("name", ["stc", "stc-0.04"])
def test_stc_sends_the_largest_with_their_sign_and_their_mean(name: str) -> None:
    vector = drawn(10_001)
    count = math.ceil((0.01 if name == "stc" else 0.04) * vector.size)
    largest = np.sort(np.argsort(-np.abs(vector), kind="stable")[:count])
    found = decoded(name, encoded(name, vector), vector.size)
    np.testing.assert_array_equal(np.flatnonzero(found), largest)
    np.testing.assert_array_equal(np.sign(found[largest]), np.sign(vector[largest]))
    assert np.abs(found[largest]) == pytest.approx(np.abs(vector[largest]).mean(), rel=1e-6)
    assert codec(name).memory
    assert not codec(name).unbiased


def test_stc_takes_the_bits_that_its_paper_says_and_little_more() -> None:
    size, rate = 1_000_000, 0.01
    # Equation 15, and one bit of sign; the unary parts are as long as they can be at most.
    binary = 1 + math.floor(math.log2(math.log((math.sqrt(5) - 1) / 2) / math.log(1 - rate)))
    published = size * rate * (binary + 1 / (1 - (1 - rate) ** 2**binary) + 1) / 8
    assert published < encoded_bytes("stc", size) < 1.1 * published


@settings(max_examples=60, deadline=None)
@given(SIZES, st.sampled_from(LOSSY), st.integers(0, 2**64 - 1))
def test_equal_seeds_give_equal_bytes_of_a_length_that_depends_on_the_number_of_elements_alone(
    size: int, name: str, seed: int
) -> None:
    vector = drawn(size, seed % 1000)
    data = encoded(name, vector, seed)
    assert data == encoded(name, vector, seed)
    assert len(data) == encoded_bytes(name, size) == len(encoded(name, np.zeros(size, np.float32), seed + 1 >> 1))
    found = decoded(name, data, size, seed)
    assert found.shape == (size,)
    assert np.isfinite(found).all()


@given(
    arrays(np.float32, st.integers(1, 60), elements=st.floats(-(2.0**100), 2.0**100, width=32)), st.sampled_from(LOSSY)
)
def test_any_finite_vector_of_usual_size_is_written_and_read(vector: Vector, name: str) -> None:
    assert np.isfinite(decoded(name, encoded(name, vector, 9), vector.size, 9)).all()


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from(LOSSY), st.integers(0, 300), st.integers(0, 2**64 - 1))
def test_hostile_bytes_are_refused_or_make_a_vector_of_the_length_that_was_asked_for(
    data: st.DataObject, name: str, size: int, seed: int
) -> None:
    length = data.draw(st.sampled_from([encoded_bytes(name, size), 0, 1, 3, 4, 5, 17, 1000]))
    hostile = data.draw(st.binary(min_size=length, max_size=length))
    try:
        found = codec(name).decode(hostile, size, seed)  # not by `decoded`, which catches everything
    except CodecError:
        return
    assert found.shape == (size,)
    assert found.dtype == np.float32


@pytest.mark.parametrize("name", LOSSY)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_where_it_could_get_lost(name: str, wrong: float) -> None:
    vector = np.ones(100, np.float32)
    vector[40] = wrong
    with pytest.raises(CodecError, match="expects finite numbers, got 1 of 100"):
        encoded(name, vector, 1)


@pytest.mark.parametrize(
    ("scale", "name"), [(np.nan, "drive"), (np.inf, "int8"), (np.nan, "rand-0.25+eden-2"), (np.inf, "stc")]
)
def test_scales_that_are_not_finite_come_out_so_that_a_server_sees_them(scale: float, name: str) -> None:
    vector = np.ones(64, np.float32)
    data = np.array([scale], "<f4").tobytes() + encoded(name, vector, 2)[4:]
    assert not np.isfinite(decoded(name, data, 64, 2)).all()


@given(SIZES)
def test_a_rotation_is_undone_and_keeps_the_norm_and_wastes_at_most_seven_elements(size: int) -> None:
    vector = drawn(size)
    parts = [part for _, part in rotated(vector, 11)]
    norm = sum(float(np.sum(np.square(part, dtype=np.float64))) for part in parts)
    assert norm == pytest.approx(float(np.sum(np.square(vector, dtype=np.float64))), rel=1e-5)
    np.testing.assert_allclose(turned_back(iter(parts), size, 11), vector, atol=1e-4)
    assert sum(each.rows * each.size for each in pieces(size)) == padded_size(size) <= size + 7


def test_what_is_drawn_is_the_same_on_every_machine() -> None:
    # Philox4x64-10 of Random123 with the seed and the purpose as its key.
    assert Draws(7, Purpose.SUBSET).words(2).tolist() == WORDS
    assert encoded("drive", drawn_by_hand(), 7).hex() == DRIVE
    assert encoded("rand-0.25+int8", drawn_by_hand(), 7).hex() == RAND_INT8
    assert encoded("stc-0.25", drawn_by_hand(), 7).hex() == STC


def drawn_by_hand() -> Vector:
    """Sixteen numbers that every machine has the same."""
    return np.array([((7 * each) % 16 - 7.5) / 4 for each in range(16)], np.float32)


WORDS = [8893702929424106994, 13357943582879616415]
DRIVE = "df7baf3fdadd"
RAND_INT8 = "c8e3713d6eb47f19"
STC = "0000e03fcc030a05"


@pytest.mark.parametrize(
    "name",
    ["rand", "rand-0.25", "rand-0.25+zip", "rand-0+drive", "rand-1+drive", "rand-0.250+drive", "rand-0.25+stc", "stc-2",
     "rand-.5+drive", "rand-0.5+rand-0.5+drive", "stc-0.0", "stc-", "drive+", "rand-0.1234567+drive", "RAND-0.5+drive"],
)  # fmt: skip
def test_what_is_no_spelling_is_refused(name: str) -> None:
    assert not is_codec(name)
    with pytest.raises(CodecError):
        encoded(name, np.ones(3, np.float32))


def test_what_a_device_has_to_know_for_a_spelling_are_its_parts() -> None:
    assert codec_parts("rand-0.25+eden-2") == ("rand", "eden-2")
    assert codec_parts("stc-0.04") == ("stc",)
    assert {part for name in LOSSY for part in codec_parts(name)} <= set(part_names())
    assert "rand-FRACTION+CODEC" in codec_spellings()


def test_codecs_of_updates_suit_no_statistics_and_no_control_variates() -> None:
    for name in LOSSY:
        assert codec(name).suits("delta")
        assert not codec(name).suits("statistics")
        assert not codec(name).suits("control")
    assert codec("float16").suits("statistics")
    assert codec("float32").suits("control")


def test_a_section_brings_the_seed_that_its_codec_drew_from() -> None:
    vector = drawn(300)
    section = Section.of("delta", vector, "rand-0.25+drive", 2**64 - 1)
    assert section.seed == 2**64 - 1
    np.testing.assert_array_equal(section.vector(), decoded("rand-0.25+drive", section.payload, 300, 2**64 - 1))
    assert Section.of("delta", vector, "float16", 5).seed == 0
