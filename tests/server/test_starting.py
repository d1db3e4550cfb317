from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgefl.errors import StorageError
from edgefl_server.operator_file import OperatorFile
from edgefl_server.starting import operator_of
from server_process import free_port

TOKEN = "a-token-that-is-long-enough"


class Waiting:
    """Sleeps that take no time; what is to happen in the n-th."""

    def __init__(self, events: dict[int, Callable[[], None]] | None = None) -> None:
        self.events, self.naps, self.seconds = events or {}, 0, 0.0
        self.told: list[str] = []

    def sleep(self, seconds: float) -> None:
        self.naps, self.seconds = self.naps + 1, self.seconds + seconds
        self.events.pop(self.naps, lambda: None)()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def url_of(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_server_that_is_there_is_not_waited_for(tmp_path: Path, listener: socket.socket) -> None:
    file, waiting = OperatorFile(url_of(listener), TOKEN), Waiting()
    file.write(tmp_path)
    assert operator_of(tmp_path, waiting.told.append, waiting.sleep) == file
    assert (waiting.told, waiting.naps) == ([], 0)


def test_a_folder_and_a_file_that_come_later_are_waited_for_and_said_once(
    tmp_path: Path, listener: socket.socket
) -> None:
    state, file = tmp_path / "state", OperatorFile(url_of(listener), TOKEN)
    waiting = Waiting({2: state.mkdir, 4: lambda: file.write(state)})
    assert operator_of(state, waiting.told.append, waiting.sleep) == file
    assert waiting.naps == 4
    assert waiting.told == [f"There is no {state / 'operator.json'}; waiting up to 20 s for a server that is starting."]


def test_a_server_that_starts_again_on_another_port_is_found(tmp_path: Path, listener: socket.socket) -> None:
    old, new = OperatorFile(f"http://127.0.0.1:{free_port()}", TOKEN), OperatorFile(url_of(listener), TOKEN)
    old.write(tmp_path)
    waiting = Waiting({3: lambda: new.write(tmp_path)})
    assert operator_of(tmp_path, waiting.told.append, waiting.sleep) == new
    assert waiting.told == [f"Nothing listens at {old.url}; waiting up to 20 s for a server that is starting."]


def test_a_folder_without_a_server_is_said_to_be_one_after_twenty_seconds(tmp_path: Path) -> None:
    waiting = Waiting()
    with pytest.raises(StorageError, match=r"There is no .*operator\.json"):
        operator_of(tmp_path, waiting.told.append, waiting.sleep)
    assert waiting.seconds == pytest.approx(20, abs=0.3)


def test_after_twenty_seconds_the_request_tells_that_nothing_listens(tmp_path: Path) -> None:
    file, waiting = OperatorFile(f"http://127.0.0.1:{free_port()}", TOKEN), Waiting()
    file.write(tmp_path)
    assert operator_of(tmp_path, waiting.told.append, waiting.sleep) == file
    assert waiting.seconds == pytest.approx(20, abs=0.3)


def test_a_damaged_file_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "operator.json").write_text("{")
    waiting = Waiting()
    with pytest.raises(StorageError, match="damaged"):
        operator_of(tmp_path, waiting.told.append, waiting.sleep)
    assert waiting.naps == 0
