"""``operator.json`` in the state folder: where the server listens, and the token that operators show."""

from __future__ import annotations

import contextlib
import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from edgefl.atomic import read_bytes, write_text
from edgefl.credentials import check_pin, check_public_key_pin, check_token
from edgefl.errors import StorageError, storage_error

__all__ = ["OperatorFile"]

_NAME = "operator.json"
_PINS = ("certificate_pin", "public_key_pin", "next_certificate_pin", "next_public_key_pin")
_ANEW = "Delete the file and start the server again: that makes a new token."


@dataclass(frozen=True)
class OperatorFile:
    """Everything that an operator's commands need to reach a server.

    Attributes:
        url: of the server, from this machine.
        admin_token: the operator's; whoever has it can stop runs and read weights.
        certificate_pin: SHA-256 of the server's certificate, or None without TLS.
        public_key_pin: that of its public key as ``sha256//BASE64``, or None.
        next_certificate_pin: of the certificate that it is going to have, or None.
        next_public_key_pin: of the key of that one, or None.
    """

    url: str
    admin_token: str
    certificate_pin: str | None = None
    public_key_pin: str | None = None
    next_certificate_pin: str | None = None
    next_public_key_pin: str | None = None

    def __repr__(self) -> str:
        return f"OperatorFile({self.url})"  # the token does not belong into a log

    @classmethod
    def read(cls, folder: Path) -> OperatorFile:
        """Reads the file of a state folder.

        Raises:
            StorageError: there is none, or it is damaged.
            InvalidSettingError: its token is none, or can be guessed; or a pin is none.
        """
        path = folder / _NAME
        try:
            document = json.loads(read_bytes(path))
            url, token = document["url"], document["admin_token"]
            pins = [document.get(name) for name in _PINS]
            pins_fit = all(isinstance(each, (str, type(None))) for each in pins)
            if not (isinstance(url, str) and isinstance(token, str) and pins_fit):
                raise TypeError
        except FileNotFoundError as error:
            raise StorageError(
                f"There is no {path}.", hint="Give the --state of a server that `edgefl server start` has started."
            ) from error
        except OSError as error:
            raise storage_error(error, "read", path) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise StorageError(f"{path} is damaged.", hint=_ANEW) from error
        return cls(
            url,
            check_token(token, str(path), hint=_ANEW),
            *(
                pin and check(pin, str(path), hint=_ANEW)
                for pin, check in zip(pins, 2 * (check_pin, check_public_key_pin), strict=True)
            ),
        )

    def write(self, folder: Path) -> None:
        """Writes the file, for its owner only, unless it says the same already.

        Raises:
            StorageError: it cannot be written.
        """
        path, text = folder / _NAME, json.dumps(asdict(self), indent=2) + "\n"
        with contextlib.suppress(OSError):  # what cannot be read is written
            if read_bytes(path) == text.encode():
                return
        write_text(path, text, durable=True, mode=0o600)

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether an earlier start has written one."""
        return (folder / _NAME).exists()

    @staticmethod
    def token(folder: Path) -> str:
        """The token of earlier starts, else a new one."""
        if not OperatorFile.exists(folder):
            return secrets.token_urlsafe(32)
        return OperatorFile.read(folder).admin_token
