"""What reaches a terminal."""

import io
import json
import sys

import pytest

from edgefl.cli.output import Format, emit, progress

HOSTILE = "layer\x1b[2J\r\x07\u202e\x9b name\n\tnext line"


def test_no_text_of_others_controls_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    emit({}, Format.text, lambda: HOSTILE)
    progress(HOSTILE)
    shown = capsys.readouterr()
    assert shown.out == shown.err == "layer?[2J???? name\n\tnext line\n"


def test_as_json_nothing_is_changed(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"name": HOSTILE}, Format.json, str)
    shown = capsys.readouterr().out
    assert json.loads(shown) == {"name": HOSTILE}
    assert shown.isascii()


def test_a_verb_that_goes_on_says_its_result_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"name": HOSTILE, "pid": 7}, Format.json, str, indent=None)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"name": HOSTILE, "pid": 7}


def test_a_standard_output_that_is_closed_ends_no_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    emit({"pid": 7}, Format.json, str, indent=None)


@pytest.mark.parametrize(("encoding", "expected"), [("ascii", "no_data ?2?\n"), ("latin-1", "no_data ×2?\n")])
def test_what_a_terminal_cannot_show_becomes_a_question_mark(
    monkeypatch: pytest.MonkeyPatch, encoding: str, expected: str
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    emit({}, Format.text, lambda: "no_data ×2…")
    progress("no_data ×2…")
    stream.flush()
    assert stream.buffer.getvalue().decode(encoding) == 2 * expected
