"""SHA-256, whoever computes it."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from edgefl.hashing import new_sha256, sha256

TEXTS = [b"", b"abc", bytes(range(256)) * 1000]


@pytest.mark.parametrize("text", TEXTS)
def test_it_is_the_standards_digest(text):
    assert sha256(text) == hashlib.sha256(text).hexdigest()
    digest = new_sha256()
    for start in range(0, len(text), 7000):
        digest.update(memoryview(text)[start : start + 7000])
    assert digest.digest() == hashlib.sha256(text).digest()


def test_python_s_own_gives_the_same_and_openssl_is_not_loaded_for_it():
    program = (
        "import sys\n"
        "from edgefl.hashing import new_sha256\n"
        # numpy 1 imports OpenSSL by itself, by way of `secrets`
        "loaded = '_hashlib' in sys.modules\n"
        "sys.modules.pop('_hashlib', None)\n"
        "digest = new_sha256()\n"
        "digest.update(b'abc')\n"
        "print(type(digest).__module__, loaded or '_hashlib' not in sys.modules, digest.hexdigest())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    module, clean, digest = done.stdout.split()
    assert module in ("_sha2", "_sha256")
    assert clean == "True"
    assert digest == hashlib.sha256(b"abc").hexdigest()
