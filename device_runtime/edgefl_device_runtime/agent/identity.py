"""The identity of a device: an id and a secret that it makes itself, once."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from edgefl.atomic import read_bytes, write_text
from edgefl.errors import StorageError, storage_error
from edgefl.hashing import sha256
from edgefl.wire.words import is_hash, is_random_id

__all__ = ["Identity"]

_FILE = "identity.json"


@dataclass(frozen=True)
class Identity:
    """A device's name and the secret that proves it.

    Attributes:
        device_id: 32 hexadecimal digits, random: it says nothing about the machine or its owner.
        secret: 256 bits as 64 hexadecimal digits. It is sent to the server as a bearer token; the server keeps only
            its hash.
    """

    device_id: str
    secret: str

    @property
    def secret_hash(self) -> str:
        """SHA-256 of the secret's text: what the server keeps."""
        return sha256(self.secret.encode())

    @property
    def authorization(self) -> str:
        """The value of the ``Authorization`` header."""
        return f"Bearer {self.device_id}.{self.secret}"

    def __repr__(self) -> str:
        return f"Identity({self.device_id})"  # a secret does not belong into a log

    @classmethod
    def load_or_make(cls, folder: Path) -> Identity:
        """Reads the identity of a state folder, or makes one that survives a power cut.

        Raises:
            StorageError: the file cannot be read or written, or is damaged.
        """
        path = folder / _FILE
        try:
            text = read_bytes(path).decode()
        except FileNotFoundError:
            identity = cls(secrets.token_hex(16), secrets.token_hex(32))
            content = json.dumps({"device_id": identity.device_id, "secret": identity.secret})
            write_text(path, content, durable=True, mode=0o600)
            return identity
        except (OSError, UnicodeDecodeError) as error:
            raise _unreadable(error, path) from error
        return cls._parse(text, path)

    @classmethod
    def _parse(cls, text: str, path: Path) -> Identity:
        try:
            document = json.loads(text)
            identity = cls(document["device_id"], document["secret"])
            if is_random_id(identity.device_id) and is_hash(identity.secret):
                return identity
        except (ValueError, KeyError, TypeError, RecursionError):
            pass  # not even of that form: the error is the same
        raise StorageError(
            f"Expected a device id and a secret in {path}, got something else.",
            hint="The file is damaged. Delete it to take part as a new device.",
        )


def _unreadable(error: Exception, path: Path) -> StorageError:
    if isinstance(error, OSError):
        return storage_error(error, "read", path)
    return StorageError(
        f"Expected text in {path}, got other bytes.",
        hint="The file is damaged. Delete it to take part as a new device.",
    )
