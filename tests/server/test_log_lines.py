from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from edgefl_server.log_lines import JsonFormatter, LineFormatter, Repeats, printable

FORGED = "x\n2026-01-01 00:00:00,000 run abc: round 1 done"


def formatted(message: str, *arguments: object, traceback: bool = False) -> str:
    record = logging.LogRecord("name", logging.ERROR, "", 1, message, arguments, sys.exc_info() if traceback else None)
    return LineFormatter().format(record)


@pytest.mark.parametrize(
    "end", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\x1b[2K\x1b[1A"]
)
def test_an_argument_cannot_make_a_second_line(end: str) -> None:
    line = formatted("refused %s: %s", "/v1/tasks", f"hash{end}2026-01-01 run abc: stopped")
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    assert "run abc: stopped" in line


def test_the_lines_of_a_traceback_cannot_be_taken_for_others() -> None:
    try:
        raise ValueError(FORGED)
    except ValueError:
        text = formatted("could not fold", traceback=True)
    first, *others = text.splitlines()
    assert first.endswith("could not fold")
    assert others
    assert all(line.startswith("    ") for line in others)


def as_json(message: str, *arguments: object, traceback: bool = False, **extra: object) -> dict[str, Any]:
    record = logging.LogRecord("name", logging.ERROR, "", 1, message, arguments, sys.exc_info() if traceback else None)
    vars(record).update(extra)
    line = JsonFormatter().format(record)
    assert len(line.splitlines()) == 1
    assert line.isascii()
    return dict(json.loads(line))


def test_as_json_a_line_has_the_ids_of_what_it_is_about() -> None:
    said = as_json("run %s: round %d done, %d outcomes folded", "33ecb569", 7, 8)
    assert said["message"] == "run 33ecb569: round 7 done, 8 outcomes folded"
    assert (said["run"], said["fold"], said["level"], said["logger"]) == ("33ecb569", 7, "error", "name")
    assert said["time"].endswith("Z")
    assert as_json("device %s exists twice", "ab")["device"] == "ab"
    said = as_json("refused %s: %s", "/v1/tasks/x", "not_finite", device="ab", run=None)
    assert (said["device"], "run" in said) == ("ab", False)


def test_as_json_nothing_from_outside_makes_a_line_or_a_field_of_its_own() -> None:
    said = as_json("refused %s: %s", "path", FORGED + '", "run": "abc\u2028')
    assert "run" not in said
    assert FORGED in said["message"]
    try:
        raise ValueError(FORGED)
    except ValueError:
        assert FORGED in as_json("could not fold", traceback=True)["traceback"]


def test_a_line_end_at_the_end_of_a_message_is_not_written_out() -> None:
    assert formatted("Exception in the application\n").endswith("Exception in the application")


def test_text_that_can_be_printed_stays_as_it_is() -> None:
    assert printable("Zürich 東京 × 3") == "Zürich 東京 × 3"
    assert printable("a\u202eb") == "a\\u202eb"


def test_what_is_repeated_is_written_once_then_counted_and_written_again_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    repeats = Repeats(logging.getLogger("x"), lambda: now)
    assert [repeats.first("a") for _ in range(500)] == [True] + [False] * 499
    assert repeats.first("b") is True
    repeats.settle()
    assert caplog.records == []
    now = 60.0
    repeats.settle()
    assert [record.getMessage() for record in caplog.records] == ["… and 499 more in the last minute: a"]
    assert repeats.first("a") is True


def test_however_much_happens_few_lines_are_written_and_little_is_remembered(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    repeats = Repeats(logging.getLogger("x"), lambda: now)
    assert sum(repeats.first(f"{number}") for number in range(10_000) for _ in range(2)) == 20
    assert len(repeats._more) == 20
    now = 60.0
    repeats.settle()
    assert len(caplog.records) == 21
    assert caplog.records[-1].getMessage() == (
        "… and 19960 more in the last minute, of other devices or for other reasons"
    )
