"""The operator's side of the protocol, for the command line."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3

from edgefl.cli.output import progress
from edgefl.credentials import check_pin, check_token
from edgefl.errors import (
    AuthenticationError,
    EdgeflError,
    InvalidSettingError,
    ModelFileError,
    ProtocolError,
    RunError,
    ServerUnavailableError,
    StorageError,
)
from edgefl.wire.refusals import Refusal
from edgefl_server.operator_file import OperatorFile
from edgefl_server.starting import operator_of
from edgefl_server.state_folder import state_folder
from edgefl_server.unreachable import unreachable

__all__ = ["OperatorClient", "run_path"]

_KINDS: dict[str, type[EdgeflError]] = {
    Refusal.WRONG_TOKEN: AuthenticationError,
    Refusal.ROLE_NEEDED: AuthenticationError,
    Refusal.NOT_FOUND: InvalidSettingError,
    Refusal.UNKNOWN_RUN: RunError,
    Refusal.ENDED: RunError,
    Refusal.INVALID_SETTING: InvalidSettingError,
    Refusal.BAD_MODEL_FILE: ModelFileError,
    Refusal.NAME_TAKEN: RunError,
    Refusal.STORAGE_FULL: StorageError,
    Refusal.STORAGE_FAILED: StorageError,
}
_RUN = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_AWAY = (502, 503, 504)
"""A proxy says this while the server behind it is away, and a server that has too many connections."""
_OF_RUNS = ("run", "runs", "token", "weights_hash", "data")
_OF_PEOPLE = ("operator", "operators", "audit", "invitation", "invitations", "device", "devices")
_SHOWN = frozenset({*_OF_RUNS, *_OF_PEOPLE})
"""Members of which every JSON answer to an operator has one."""
_WHERE = "It is in operator.json of the server's state folder."
_KEYS = ("EDGEFL_OPERATOR_KEY", "EDGEFL_ADMIN_TOKEN")
_TIMEOUT = urllib3.Timeout(connect=10, read=300)


def run_path(run: str, what: str = "") -> str:
    """The path of a call about a run; as it was typed, a name could make another call of it.

    Args:
        run: its id or name.
        what: below it.

    Raises:
        RunError: no run can have such a name.
    """
    if not _RUN.fullmatch(run):
        raise RunError(f"There is no run {run!r:.80}.", hint="`edgefl run list` names all runs.")
    return f"/v1/runs/{run}/{what}" if what else f"/v1/runs/{run}"


class OperatorClient:
    """Calls a server as its operator.

    Args:
        operator: where it is, and the token.

    Raises:
        InvalidSettingError: the URL is none of HTTP, or there is a pin for a server without a certificate.
    """

    def __init__(self, operator: OperatorFile) -> None:
        if not operator.url.startswith(("http://", "https://")):
            raise InvalidSettingError(f"The server's URL expects http:// or https:// in front, got {operator.url!r}.")
        if operator.certificate_pin and operator.url.startswith("http://"):
            raise InvalidSettingError(
                "A certificate pin needs an https:// server, got an http:// one.",
                hint="Leave the pin out, or use the server's https:// address.",
            )
        self.url = operator.url.rstrip("/")
        self.certificate_pin, self.public_key_pin = operator.certificate_pin, operator.public_key_pin
        self.next_pins = (operator.next_certificate_pin, operator.next_public_key_pin)
        self._headers = {"Authorization": f"Bearer {operator.admin_token}"}
        if operator.certificate_pin:
            # The pin is stricter than any authority: this very certificate.
            self._pool = urllib3.PoolManager(cert_reqs="CERT_NONE", assert_fingerprint=operator.certificate_pin)
        else:
            self._pool = urllib3.PoolManager()

    @classmethod
    def find(cls, state: Path | None, server: str | None) -> OperatorClient:
        """A client for the server of a state folder, once it has started, or for a URL with EDGEFL_OPERATOR_KEY.

        EDGEFL_ADMIN_TOKEN is taken where there is no other key: either may be any operator's key, or the token of
        operator.json. Without either it is the folder that `edgefl server start` takes by itself.

        Raises:
            InvalidSettingError: both were given, or the token or the pin is missing or none.
            StorageError: the state folder has no operator.json.
        """
        if state is not None and server is not None:
            raise InvalidSettingError("This expects one of --state and --server.", hint="On the server: --state DIR.")
        if server is None:
            return cls(operator_of(state_folder(state), progress))
        name = next((each for each in _KEYS if os.environ.get(each)), "")
        if not name:
            raise InvalidSettingError(
                "--server needs an operator's key in EDGEFL_OPERATOR_KEY (or EDGEFL_ADMIN_TOKEN).",
                hint=f"`edgefl server operators add` makes one. The admin's: {_WHERE[0].lower()}{_WHERE[1:]}",
            )
        pin = os.environ.get("EDGEFL_CERTIFICATE_PIN", "")
        return cls(
            OperatorFile(
                str(server),
                check_token(os.environ[name], name, shortest=1, hint=_WHERE),
                check_pin(pin, "EDGEFL_CERTIFICATE_PIN", hint=_WHERE) if pin else None,
            )
        )

    def get(self, path: str) -> dict[str, Any]:
        """A JSON answer.

        Raises:
            ProtocolError: somebody else gave it, such as a captive portal.
        """
        return self._json("GET", path)

    def post(self, path: str, document: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Sends JSON, gets JSON; see `get`."""
        body = None if document is None else json.dumps(document).encode()
        return self._json("POST", path, body, "application/json")

    def upload(self, path: str, query: Mapping[str, Any], data: bytes) -> dict[str, Any]:
        """Sends bytes with settings in the query, gets JSON; see `get`."""
        given = {name: value for name, value in query.items() if value is not None}
        return self._json("POST", f"{path}?{urlencode(given)}", data, "application/octet-stream")

    def download(self, path: str) -> tuple[bytes, Mapping[str, str]]:
        """Bytes, and the answer's headers; see `get`."""
        answer = self._request("GET", path, None, None)
        if "ETag" not in answer.headers:
            raise ProtocolError(f"{self.url} does not answer like an edgefl server: no weights.")
        return answer.data, answer.headers

    def _json(self, method: str, path: str, body: bytes | None = None, kind: str | None = None) -> dict[str, Any]:
        answer = self._request(method, path, body, kind)
        try:
            document = json.loads(answer.data)
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"{self.url} does not answer like an edgefl server: no JSON.") from error
        if not isinstance(document, dict) or _SHOWN.isdisjoint(document):
            raise ProtocolError(f"{self.url} does not answer like an edgefl server: JSON of another kind.")
        return document

    def _request(self, method: str, path: str, body: bytes | None, kind: str | None) -> urllib3.BaseHTTPResponse:
        headers = self._headers if kind is None else {**self._headers, "Content-Type": kind}
        try:
            answer = self._pool.request(
                method, self.url + path, body=body, headers=headers, timeout=_TIMEOUT, retries=False, redirect=False
            )
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise unreachable(self.url, error, pinned=self.certificate_pin is not None) from error
        if answer.status >= 400:
            raise self._refusal(answer)
        return answer

    def _refusal(self, answer: urllib3.BaseHTTPResponse) -> EdgeflError:
        try:
            error = json.loads(answer.data)["error"]
            code, message, hint = str(error["code"]), str(error["message"]), error.get("hint")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            kind = ServerUnavailableError if answer.status in _AWAY else ProtocolError
            return kind(f"{self.url} answered with status {answer.status} and no explanation.")
        return _KINDS.get(code, ServerUnavailableError if answer.status in _AWAY else ProtocolError)(message, hint=hint)
