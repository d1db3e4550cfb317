from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from edgefl.errors import InvalidSettingError, ProtocolError, ServerUnavailableError, StorageError
from edgefl_server.operator_client import OperatorClient
from edgefl_server.operator_file import OperatorFile


@pytest.fixture
def other_server() -> Iterator[str]:
    """Something that answers, but is no edgefl server."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(self.path.rpartition("/")[2]))
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("status", [200, 404, 500])
def test_another_kind_of_server_is_a_protocol_error(other_server: str, status: int) -> None:
    with pytest.raises(ProtocolError):
        OperatorClient(OperatorFile(other_server, "x")).get(f"/{status}")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://"])
def test_an_address_without_a_server_is_one_clear_error(url: str) -> None:
    with pytest.raises(ServerUnavailableError):
        OperatorClient(OperatorFile(url, "x")).get("/v1/runs")


@pytest.mark.parametrize("url", ["nonsense", "ftp://x", ""])
def test_a_url_that_is_not_http_is_refused(url: str) -> None:
    with pytest.raises(InvalidSettingError, match="http://"):
        OperatorClient(OperatorFile(url, "x"))


def test_state_or_server_but_not_both(tmp_path: Path) -> None:
    for state, server in ((None, None), (tmp_path, "http://x")):
        with pytest.raises(InvalidSettingError, match="one of --state and --server"):
            OperatorClient.find(state, server)


def test_the_operators_file_survives_a_round_trip_and_hides_its_token(tmp_path: Path) -> None:
    file = OperatorFile("http://127.0.0.1:1", "secret-token", "ab" * 32)
    file.write(tmp_path)
    assert OperatorFile.read(tmp_path) == file
    assert OperatorFile.token(tmp_path) == "secret-token"
    assert stat.S_IMODE((tmp_path / "operator.json").stat().st_mode) == 0o600
    assert "secret-token" not in repr(file)


def test_tokens_of_two_servers_differ(tmp_path: Path) -> None:
    assert OperatorFile.token(tmp_path / "a") != OperatorFile.token(tmp_path / "b")


def test_a_damaged_operators_file_is_one_clear_error(tmp_path: Path) -> None:
    for text in ("", "[]", "{}", '{"url": "x"}'):
        (tmp_path / "operator.json").write_text(text)
        with pytest.raises(StorageError, match="damaged"):
            OperatorFile.read(tmp_path)
