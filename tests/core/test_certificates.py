from __future__ import annotations

import base64
import contextlib
import hashlib
import ssl
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.certificates import certificate_pin, public_key_info, public_key_pin
from edgefl.credentials import check_public_key_pin
from edgefl.errors import InvalidSettingError

# Made once by `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=edgefl`; the pin by
# `openssl x509 -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64`.
CERTIFICATE = ssl.PEM_cert_to_DER_cert(
    """-----BEGIN CERTIFICATE-----
MIIBeTCCAR+gAwIBAgIUUTcwZThqclkXrx92Tlz9utUxyTUwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGZWRnZWZsMCAXDTI2MTEyOTA4MzYwOVoYDzIxMjYxMTA1MDgz
NjA5WjARMQ8wDQYDVQQDDAZlZGdlZmwwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AATfxPXWHihP+uby08SBmzi3VIDQ9SAsSt9pB8UPW9ujouEWzKzXtIr/sZ+6gdlz
SsimmBcvsOF1gRRNjxxRO7zeo1MwUTAdBgNVHQ4EFgQUBasCBdNk8Vm6utBBrLE/
A2CBo1swHwYDVR0jBBgwFoAUBasCBdNk8Vm6utBBrLE/A2CBo1swDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiB9zowLj1aDfViHblVviz2RXfvqLzRy
iETC5OdxloQaUwIhAM4HEQWFKWMIgysJka9Gu5jpCeHMWypC8k0YwG7zruyV
-----END CERTIFICATE-----
"""
)
PIN = "sha256//JRYGy9DrtQ8YzRVHLMYZjJ15ampPZGefZKP3MHftVgw="

KINDS = {
    "elliptic": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
    "rsa": ("-newkey", "rsa:2048"),
    "edwards": ("-newkey", "ed25519"),
}


def test_the_pin_of_a_key_is_what_openssl_says() -> None:
    assert public_key_pin(CERTIFICATE) == PIN
    assert certificate_pin(CERTIFICATE) == hashlib.sha256(CERTIFICATE).hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_the_key_of_every_kind_of_certificate_is_found(tmp_path: Path, kind: str) -> None:
    files = ("-keyout", tmp_path / "key.pem", "-out", tmp_path / "certificate.pem")
    try:
        subprocess.run(
            ["openssl", "req", "-x509", *KINDS[kind], "-nodes", *files, "-days", "2", "-subj", "/CN=edgefl"],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("openssl makes the certificate")
    key = ["openssl", "pkey", "-in", tmp_path / "key.pem", "-pubout", "-outform", "der"]
    expected = subprocess.run(key, check=True, capture_output=True).stdout
    der = ssl.PEM_cert_to_DER_cert((tmp_path / "certificate.pem").read_text())
    assert public_key_info(der) == expected
    assert public_key_pin(der) == "sha256//" + base64.b64encode(hashlib.sha256(expected).digest()).decode()


@given(st.binary(max_size=200))
def test_bytes_that_are_no_certificate_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidSettingError, match=r"Expected an X\.509 certificate"):
        public_key_info(data)


@given(st.data())
def test_a_damaged_certificate_is_refused_or_has_another_pin_but_never_crashes(data: st.DataObject) -> None:
    damaged = bytearray(CERTIFICATE)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidSettingError):
        public_key_info(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))


@pytest.mark.parametrize("spell", [str, " {} ".format, lambda pin: pin.replace("//", "/")])
def test_a_pin_is_taken_as_curl_and_as_okhttp_write_it(spell) -> None:
    assert check_public_key_pin(spell(PIN), "the test") == PIN


@pytest.mark.parametrize("pin", ["", "sha256//", PIN[:-1], PIN.removeprefix("sha256//"), "ab" * 32, f"{PIN};{PIN}"])
def test_something_else_than_a_pin_of_a_key_is_refused(pin: str) -> None:
    with pytest.raises(InvalidSettingError, match="sha256// and 44 characters of base64 in the test"):
        check_public_key_pin(pin, "the test")
