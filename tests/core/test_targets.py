"""A target stands for interpreters from some version on."""

import pytest

from edgefl.errors import InvalidSettingError
from edgefl.targets import TARGETS, included


def test_all_includes_every_single_target() -> None:
    assert [each.name for each in included("all")] == list(TARGETS) == ["tflite-2.14", "litert-2"]
    assert [each.name for each in included("litert-2")] == ["litert-2"]


def test_an_unknown_target_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidSettingError, match=r"'tflite-2\.15', expected tflite-2\.14, litert-2 or all"):
        included("tflite-2.15")


@pytest.mark.parametrize(
    ("target", "runtime", "version", "covered"),
    [
        ("tflite-2.14", "tflite-runtime", "2.14.0", True),
        ("tflite-2.14", "tflite-runtime", "2.13.1", False),
        ("tflite-2.14", "tflite-runtime", "3", True),
        ("tflite-2.14", "tflite-runtime", "2.14rc1", False),
        ("tflite-2.14", "tflite-runtime", None, True),
        ("tflite-2.14", "ai-edge-litert", "2.14.0", False),
        ("litert-2", "ai-edge-litert", "2.3.0", True),
        ("litert-2", "ai-edge-litert", "1.4.0", False),
    ],
)
def test_a_target_covers_its_runtime_from_its_version_on(
    target: str, runtime: str, version: str | None, covered: bool
) -> None:
    assert TARGETS[target].covers(runtime, version) is covered


def test_a_runtime_that_is_not_there_is_said_to_have_no_wheel_where_that_is_so() -> None:
    old, new = TARGETS["tflite-2.14"], TARGETS["litert-2"]
    assert [old.has_wheel((3, 11)), old.has_wheel((3, 12)), new.has_wheel((3, 13))] == [True, False, True]
    assert old.absence((3, 11)) == "tflite-runtime 2.14 or newer is not installed"
    assert old.absence((3, 13)).endswith("is not installed, and has no wheel for a Python newer than 3.11")
    assert new.absence((3, 13)) == "ai-edge-litert 2.3 or newer is not installed"
