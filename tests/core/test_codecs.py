import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from edgefl.codecs import CODECS, Codec, codec, codec_names, decoded, encoded, register
from edgefl.errors import CodecError
from edgefl.wire.messages import Section

vectors = arrays(np.float32, st.integers(0, 50), elements=st.floats(width=32))


@given(vectors)
def test_float32_is_exact_to_the_bit(vector: NDArray[np.float32]) -> None:
    assert decoded("float32", encoded("float32", vector), vector.size).tobytes() == vector.tobytes()


@given(arrays(np.float32, st.integers(0, 50), elements=st.floats(-60000, 60000, width=32)))
def test_float16_errs_by_at_most_half_a_unit_in_the_last_place(vector: NDArray[np.float32]) -> None:
    found = decoded("float16", encoded("float16", vector), vector.size)
    assert found.dtype == np.float32
    assert np.all(np.abs(found - vector) <= np.maximum(np.abs(vector) * 2.0**-11, 2.0**-25))


@given(vectors, st.sampled_from(["float32", "float16"]))
def test_the_length_of_the_bytes_depends_on_the_length_of_the_vector_only(
    vector: NDArray[np.float32], name: str
) -> None:
    assert len(encoded(name, vector)) == vector.size * {"float32": 4, "float16": 2}[name]


@given(vectors, st.sampled_from(["float32", "float16"]))
def test_what_is_finite_stays_finite_and_what_is_not_stays_not(vector: NDArray[np.float32], name: str) -> None:
    found = decoded(name, encoded(name, vector), vector.size)
    assert np.array_equal(np.isfinite(found), np.isfinite(vector))


@pytest.mark.parametrize("name", ["float32", "float16"])
def test_bytes_of_another_length_are_refused(name: str) -> None:
    data = encoded(name, np.zeros(3, np.float32))
    with pytest.raises(CodecError, match="expects"):
        decoded(name, data[:-1], 3)
    with pytest.raises(CodecError, match="expects"):
        decoded(name, data, 4)


def test_an_unknown_codec_lists_the_known_ones() -> None:
    with pytest.raises(CodecError, match="float16, float32"):
        codec("zip")


def test_a_name_is_registered_once() -> None:
    with pytest.raises(CodecError, match="already"):
        register(Codec("float32", lambda vector, seed: b"", lambda data, size, seed: np.zeros(size, np.float32)))
    assert codec_names() == ("drive", "eden-2", "eden-3", "eden-4", "float16", "float32", "int8", "stc")


def test_bytes_are_little_endian() -> None:
    assert encoded("float32", np.array([1.0], np.float32)) == b"\x00\x00\x80\x3f"
    assert encoded("float16", np.array([1.0], np.float32)) == b"\x00\x3c"


class _Failing:
    """A codec from outside with a mistake in it, and the name under which it lies in the registry."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._entries = monkeypatch

    def __call__(
        self, encode: object = lambda vector, seed: b"", decode: object = lambda data, size, seed: None
    ) -> str:
        self._entries.setitem(CODECS._entries, "mistaken", Codec("mistaken", encode, decode))  # type: ignore[arg-type]
        return "mistaken"


@pytest.fixture
def mistaken(monkeypatch: pytest.MonkeyPatch) -> _Failing:
    return _Failing(monkeypatch)


def test_a_codec_that_fails_or_returns_something_else_is_named_and_so_is_what_it_did(mistaken: _Failing) -> None:
    vector = np.ones(3, np.float32)
    with pytest.raises(CodecError, match="'mistaken' cannot encode 3 elements: KeyError"):
        encoded(mistaken(encode=lambda vector, seed: {}["scale"]), vector)
    with pytest.raises(CodecError, match="'mistaken' expects to encode to bytes, got str"):
        encoded(mistaken(encode=lambda vector, seed: "text"), vector)
    with pytest.raises(CodecError, match="'mistaken' cannot decode 5 bytes: ValueError"):
        decoded(mistaken(decode=lambda data, size, seed: np.frombuffer(data, "<f4")), b"12345", 3)
    for wrong, got in (
        (lambda data, size, seed: np.zeros(size), "float64 of shape"),
        (lambda data, size, seed: np.zeros(size - 1, np.float32), r"float32 of shape \(2,\)"),
        (lambda data, size, seed: [0.0] * size, "list"),
    ):
        with pytest.raises(CodecError, match=rf"expects to decode to float32 of shape \(3,\), got {got}"):
            decoded(mistaken(decode=wrong), b"", 3)


def test_that_memory_is_short_stays_what_it_is(mistaken: _Failing) -> None:
    def greedy(*_: object) -> bytes:
        raise MemoryError

    with pytest.raises(MemoryError):
        encoded(mistaken(encode=greedy), np.ones(3, np.float32))
    with pytest.raises(MemoryError):
        decoded(mistaken(decode=greedy), b"", 3)


def test_a_section_of_a_mistaken_codec_is_refused_as_one_that_does_not_fit(mistaken: _Failing) -> None:
    section = Section.of("delta", np.ones(3, np.float32), mistaken())
    with pytest.raises(CodecError, match="expects to decode to float32"):
        section.vector()
