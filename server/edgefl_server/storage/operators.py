"""Operators: each has a role and a key of its own, of which only the hash is kept."""

from __future__ import annotations

import hmac
import re
import secrets
from typing import Any

from sqlalchemy import select

from edgefl.errors import AuthenticationError, InvalidSettingError
from edgefl.hashing import sha256
from edgefl_server.roles import ADMIN, Operator, Role
from edgefl_server.storage.state import ServerState
from edgefl_server.storage.tables import OperatorRow

__all__ = [
    "OperatorRefusedError",
    "add_operator",
    "has_form_of_key",
    "list_operators",
    "operator_named",
    "operator_with_key",
    "revoke_operator",
]

_KEY = re.compile(r"edgefl_[A-Za-z0-9_-]{43}")
_LONGEST_NAME = 64


class OperatorRefusedError(AuthenticationError):
    """A key that was never given out, was revoked, or has expired."""


def add_operator(state: ServerState, name: str, role: Role, seconds: float | None = None) -> str:
    """Makes an operator.

    Args:
        state: the server's.
        name: any text that no operator has or had; it is kept as it is.
        role: what the operator may do.
        seconds: how long the key is good for; None: until it is revoked.

    Returns:
        The key, of which only a hash is kept.

    Raises:
        InvalidSettingError: the name is taken or none, or the time is over before it begins.
    """
    _check_name(name)
    if seconds is not None and not seconds > 0:
        raise InvalidSettingError(f"A key expires after more than 0 seconds, got {seconds:g}.")
    key = f"edgefl_{secrets.token_urlsafe(32)}"
    now = state.date()
    with state.database.write() as session:
        if session.get(OperatorRow, name) is not None:
            raise InvalidSettingError(
                f"There is or was an operator {name!r}.",
                hint="Choose another name: what was done under one stays the deed of one operator.",
            )
        session.add(
            OperatorRow(
                name=name,
                role=role.value,
                key_hash=sha256(key.encode()),
                created_at=now,
                expires_at=None if seconds is None else now + seconds,
                revoked_at=None,
            )
        )
    return key


def list_operators(state: ServerState) -> list[dict[str, Any]]:
    """All operators, also revoked ones, in the order in which they were added; without keys."""
    now = state.date()
    with state.database.read() as session:
        rows = session.scalars(select(OperatorRow).order_by(OperatorRow.created_at, OperatorRow.name)).all()
    return [
        {
            "name": row.name,
            "role": row.role,
            "state": _state(row, now),
            "created_at": row.created_at,
            "expires_at": row.expires_at,
            "revoked_at": row.revoked_at,
        }
        for row in rows
    ]


def revoke_operator(state: ServerState, name: str) -> None:
    """Makes an operator's key worthless at once; nothing where that was done before.

    Raises:
        InvalidSettingError: there is no such operator.
    """
    with state.database.write() as session:
        row = session.get(OperatorRow, name) if _is_name(name) else None
        if row is None:
            raise InvalidSettingError(
                f"There is no operator {name!r:.80}.",
                hint="The token of operator.json is revoked by deleting the file and starting the server again."
                if name == ADMIN.name
                else "`edgefl server operators list` names all.",
            )
        if row.revoked_at is None:
            row.revoked_at = state.date()


def operator_named(state: ServerState, name: str) -> Operator | None:
    """The operator of a name as it is now; None where its key is not good any more, or there never was one."""
    if name == ADMIN.name:
        return ADMIN
    with state.database.read() as session:
        row = session.get(OperatorRow, name) if _is_name(name) else None
    return Operator(name, Role(row.role)) if row is not None and _state(row, state.date()) == "active" else None


def has_form_of_key(text: str) -> bool:
    """Whether it may be an operator's key; what is not need not be looked up."""
    return _KEY.fullmatch(text) is not None


def operator_with_key(state: ServerState, key: str) -> Operator:
    """The operator whose key it is.

    Raises:
        OperatorRefusedError: it is nobody's, was revoked, or has expired.
    """
    # Looked up by hash: what timing tells about a hash does not help to guess the key.
    digest = sha256(key.encode())
    with state.database.read() as session:
        row = session.scalar(select(OperatorRow).where(OperatorRow.key_hash == digest))
    if not hmac.compare_digest("0" * 64 if row is None else row.key_hash, digest) or row is None:
        raise OperatorRefusedError("The key is not one of this server's operators.", hint="Ask an admin for one.")
    status = _state(row, state.date())
    if status != "active":
        raise OperatorRefusedError(
            f"The key of the operator {row.name!r} {'was revoked' if status == 'revoked' else 'has expired'}.",
            hint="Ask an admin for a new one.",
        )
    return Operator(row.name, Role(row.role))


def _state(row: OperatorRow, now: float) -> str:
    if row.revoked_at is not None:
        return "revoked"
    return "expired" if row.expires_at is not None and row.expires_at <= now else "active"


def _is_name(name: str) -> bool:
    if not 0 < len(name) <= _LONGEST_NAME or not name.strip() or "\0" in name:
        return False
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _check_name(name: str) -> None:
    if not _is_name(name):
        raise InvalidSettingError(f"An operator's name expects 1 to {_LONGEST_NAME} characters, got {name!r:.80}.")
    if name == ADMIN.name:
        raise InvalidSettingError(
            f"{ADMIN.name!r} is whoever has the token of operator.json.", hint="Choose another name."
        )
