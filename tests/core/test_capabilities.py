from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.capabilities import lacks, least_memory
from edgefl.wire.messages import (
    PROTOCOL_VERSION,
    Correction,
    ExtraVector,
    Section,
    SectionCodec,
    Task,
    TaskKind,
    Weighting,
)

TASK = Task(
    population="p",
    run="r",
    task_id="t",
    model_hash="a" * 64,
    graph_hash="b" * 64,
    layout_hash="c" * 64,
    base_weights_hash="d" * 64,
    base_weights_bytes=1000,
    codecs=(SectionCodec("delta", "float16"), SectionCodec("statistics", "float32")),
)
ABLE: dict[str, Any] = {
    "protocol": PROTOCOL_VERSION,
    "kinds": ["train"],
    "corrections": ["none"],
    "weightings": ["examples"],
    "codecs": ["float16", "float32"],
    "payloads": [],
    "runtimes": ["tflite-runtime"],
    "memory_bytes": 3000,
}


def test_a_device_that_can_do_it_all_lacks_nothing() -> None:
    assert lacks(ABLE, TASK, "tflite-2.14") is None


@pytest.mark.parametrize(
    ("change", "target", "words"),
    [
        ({"kind": TaskKind.GRADIENT}, "all", "lacks 'gradient' among its kinds"),
        ({"kind": 77}, "all", "lacks '77' among its kinds"),
        ({"correction": Correction.SCAFFOLD}, "all", "lacks 'scaffold' among its corrections"),
        ({"weighting": Weighting.UNIFORM}, "all", "lacks 'uniform' among its weightings"),
        ({"codecs": (SectionCodec("delta", "int8"),)}, "all", "lacks 'int8' among its codecs"),
        ({"codecs": (SectionCodec("delta", "rand-0.25+float16"),)}, "all", "lacks 'rand' among its codecs"),
        ({"codecs": (SectionCodec("delta", "stc-0.04"),)}, "all", "lacks 'stc' among its codecs"),
        ({"payloads": (Section.of_bytes("roster", b""),)}, "all", "lacks 'roster' among its payloads"),
        ({}, "litert-2", "lacks ai-edge-litert, which the model file was made for"),
        ({"base_weights_bytes": 1001}, "all", "has 3000 bytes of memory, and the task's vectors alone take 3003"),
        ({"extra_vectors": (ExtraVector("control", "e" * 64, 1),)}, "all", "vectors alone take 3001"),
    ],
)
def test_what_a_device_lacks_is_named_and_restricts_only_those_that_say_so(
    change: dict[str, Any], target: str, words: str
) -> None:
    task = replace(TASK, **change)
    assert words in str(lacks(ABLE, task, target))
    assert lacks({}, task, target) is None
    for another in ("something else", True, 0.5):
        assert lacks(dict.fromkeys(ABLE, another), task, target) is None


@pytest.mark.parametrize("version", [PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1])
def test_a_device_of_another_protocol_could_not_read_the_task(version: int) -> None:
    assert f"speaks protocol version {version}" in str(lacks({"protocol": version}, TASK))


def test_a_target_that_is_not_known_excludes_no_device() -> None:
    assert lacks(ABLE, TASK, "of-a-later-edgefl") is None


def test_the_least_memory_is_that_of_the_vectors() -> None:
    assert least_memory(replace(TASK, extra_vectors=(ExtraVector("control", "e" * 64, 800),))) == 3 * 1000 + 800
    assert least_memory(replace(TASK, base_weights_bytes=0)) == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from([*ABLE, "later"]), JSON))
def test_whatever_a_device_says_nothing_breaks(capabilities: dict[str, Any]) -> None:
    assert isinstance(lacks(capabilities, TASK), (str, type(None)))
