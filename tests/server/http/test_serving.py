from __future__ import annotations

import socket
from pathlib import Path

import pytest

from edgefl.errors import InsecureListenError, InvalidSettingError, ListenError, StorageError
from edgefl_server.http.serving import Address, listen


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.8.9.10", "::1"])
def test_this_machine_may_be_served_without_tls(host: str) -> None:
    Address(host, 0).check()


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.0.2.1"])
def test_other_machines_may_not_unless_asked_for(host: str) -> None:
    with pytest.raises(InsecureListenError):
        Address(host, 0).check()
    Address(host, 0, insecure=True).check()


def test_a_host_without_an_address_is_one_clear_error() -> None:
    with pytest.raises(ListenError, match="no address"):
        Address("no.such.host.invalid", 0).check()


def test_a_certificate_needs_its_key_and_both_must_be_readable(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("not a certificate")
    with pytest.raises(InvalidSettingError, match="both"):
        Address("127.0.0.1", 0, certificate=bad).check()
    with pytest.raises(InvalidSettingError, match="not a certificate and its key"):
        Address("127.0.0.1", 0, bad, bad).check()
    with pytest.raises(StorageError):
        Address("127.0.0.1", 0, tmp_path / "missing", bad).check()
    with pytest.raises(StorageError, match="no certificate"):
        Address("127.0.0.1", 0, bad, bad).pins()


def test_a_port_in_use_is_refused_and_named() -> None:
    with listen(Address("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(ListenError, match=f"port {port}"):
            listen(Address("127.0.0.1", port))


def test_a_port_is_free_again_at_once(tmp_path: Path) -> None:
    with listen(Address("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            first.accept()[0].close()
    listen(Address("127.0.0.1", port)).close()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:1"),
        ("0.0.0.0", "http://127.0.0.1:1"),
        ("::", "http://[::1]:1"),
        ("kitchen.local", "http://kitchen.local:1"),
    ],
)
def test_the_url_is_one_that_this_machine_can_use(host: str, url: str) -> None:
    assert Address(host, 0).url(1) == url
