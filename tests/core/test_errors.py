import errno
import inspect
import re
from pathlib import Path

import pytest

from edgefl import errors

DOCUMENT = Path(__file__).parents[2] / "docs" / "errors.md"


def error_classes() -> list[type[errors.EdgeflError]]:
    members = [member for _, member in inspect.getmembers(errors, inspect.isclass)]
    return [member for member in members if issubclass(member, errors.EdgeflError)]


def test_every_error_has_an_exit_code_of_its_own_that_shells_leave_free() -> None:
    codes = {kind.__name__: kind.exit_code for kind in error_classes()}
    assert len(set(codes.values())) == len(codes)
    assert all(code in range(1, 126) and code != 2 for code in codes.values())


def test_the_documentation_lists_exactly_the_errors_there_are() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    assert {name: int(code) for code, name in rows} == {kind.__name__: kind.exit_code for kind in error_classes()}


def test_an_error_prints_as_its_message_and_its_hint() -> None:
    assert str(errors.DataError("Expected 3, got 4.")) == "Expected 3, got 4."
    assert str(errors.DataError("Expected 3, got 4.", hint="Send 3.")) == "Expected 3, got 4. Send 3."


def test_a_full_disk_says_what_was_done_and_what_to_do() -> None:
    error = errors.storage_error(OSError(errno.ENOSPC, "No space left on device"), "write", "/a/b")
    assert str(error).startswith("Could not write /a/b: No space left on device. Free some space")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\n one \ntwo"), "one"),
        (ValueError(), "ValueError"),
        (KeyError(), "KeyError"),
        (KeyboardInterrupt("  "), "KeyboardInterrupt"),
        (ValueError("Exception encountered when calling Dense.call().\n\nWrong."), "Wrong."),
        (ValueError("Call arguments received by Dense.call():"), "ValueError"),
        (ValueError("\x1b[1mWrong.\x1b[0m"), "Wrong."),
        (ValueError("x" * 1000), "x" * 300),
    ],
)
def test_an_errors_first_line_tells_the_cause_and_is_never_empty(error: BaseException, line: str) -> None:
    assert errors.first_line(error) == line
