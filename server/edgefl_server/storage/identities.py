"""Devices, which may talk to the server. Secrets are kept as hashes and compared in constant time."""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import re
from typing import Any

from sqlalchemy import func, select

from edgefl.errors import AuthenticationError, InvalidSettingError, StorageError
from edgefl.hashing import canonical_json, sha256
from edgefl.wire.refusals import Refusal
from edgefl.wire.words import HASH, RANDOM_ID, is_hash, is_public_key, is_random_id
from edgefl_server.storage.audit import record
from edgefl_server.storage.invitations import (
    EnrolmentRefusedError,
    check_population,
    find_invitation,
    invitation_id,
    require_open,
    use_invitation,
)
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.state import ServerState
from edgefl_server.storage.tables import DeviceRow, InvitationRow, PopulationRow

__all__ = [
    "authenticate",
    "doubled_devices",
    "enrol",
    "has_form_of_credentials",
    "populations",
    "require_invited",
    "shown_capabilities",
    "tell_capabilities",
    "tell_of_double",
    "tell_public_key",
    "unknown_device",
]

_log = logging.getLogger(__name__)

_CREDENTIALS = re.compile(rf"{RANDOM_ID}\.{HASH}")
_MAX_CAPABILITIES_BYTES = 4096
_MOST_NESTED = 8
"""Whoever shows a device goes into its capabilities level by level, and cannot go as deep as JSON can."""
_NAMED = 20
"""Populations that a message names."""


def populations(state: ServerState) -> dict[str, int]:
    """Every population to which somebody was ever invited, by name, and how many devices are enrolled in it."""
    with state.database.read() as session:
        invited = session.scalars(select(InvitationRow.population).distinct()).all()
        rows = session.execute(
            select(DeviceRow.population, func.count())
            .where(DeviceRow.removed_at.is_(None))
            .group_by(DeviceRow.population)
        ).all()
    counts: dict[str, int] = dict(rows)
    return {name: counts.get(name, 0) for name in sorted({*invited, *counts})}


def require_invited(state: ServerState, population: str) -> None:
    """Refuses a population that can have no devices: most likely its name is not what the operator meant.

    Raises:
        InvalidSettingError: nobody was ever invited to it, or it is no name of one.
    """
    check_population(population)
    known = populations(state)
    if population not in known:
        there = f"There {'is' if len(known) == 1 else 'are'}: {', '.join(list(known)[:_NAMED])}. " if known else ""
        raise InvalidSettingError(
            f"Nobody was ever invited to the population {population!r}.",
            hint=f"{there}`edgefl server invite` invites devices to it.",
        )


def enrol(
    state: ServerState,
    token: str,
    device: str,
    secret_hash: str,
    population: str,
    capabilities: dict[str, Any],
    public_key: str | None = None,
) -> bool:
    """Takes a device in.

    Args:
        state: the server's.
        token: what the invitation said.
        device: the id that the device chose: 32 hexadecimal digits.
        secret_hash: SHA-256 of the secret that the device keeps.
        population: what the device wants to take part in.
        capabilities: what it says about itself.
        public_key: by which other devices may agree on keys with it; None: as before, or none.

    Returns:
        True for a new device, False when the same one enrols again.

    A device that is known may enrol again with an invitation that has ended meanwhile: it only repeats itself.

    Raises:
        EnrolmentRefusedError: the token is not valid (there), or has ended, or the id belongs to a device with another
            secret.
        InvalidSettingError: a value has another form.
    """
    if not is_random_id(device) or not is_hash(secret_hash):
        raise InvalidSettingError(
            "device_id expects 32 and secret_hash 64 lower-case hexadecimal digits, got something else."
        )
    _check_capabilities(capabilities)
    _check_public_key(public_key)
    check_population(population)
    now = state.date()
    with state.database.read() as session:
        # A thousand that come too late do not queue for the writer.
        invitation = find_invitation(session, token, population)
        if session.get(DeviceRow, device) is None:
            require_open(invitation, now)
    with state.database.write() as session:
        known = session.get(DeviceRow, device)
        if known is None:
            invitation = use_invitation(session, token, population, now)
            size_of = session.get(PopulationRow, population)
            if size_of is None:
                session.add(PopulationRow(population=population, devices=1))
            else:
                size_of.devices += 1
            session.add(
                DeviceRow(
                    device=device,
                    population=population,
                    secret_hash=secret_hash,
                    capabilities=capabilities,
                    public_key=public_key,
                    created_at=now,
                )
            )
            said = {"invitation": invitation_id(invitation), "label": invitation.label}
            record(session, now, device, "device", "devices.enrol", population, said)
            return True
        if known.removed_at is not None:
            raise EnrolmentRefusedError(
                Refusal.IDENTITY_TAKEN,
                f"Device {device} was removed by the operator.",
                hint="Ask the operator. With an empty state folder the device makes a new identity.",
            )
        if not hmac.compare_digest(known.secret_hash, secret_hash) or known.population != population:
            raise EnrolmentRefusedError(
                Refusal.IDENTITY_TAKEN,
                f"Device {device} is enrolled with another secret or in another population.",
                hint="Start the device with an empty state folder, so that it makes a new identity.",
            )
        known.capabilities = capabilities
        known.public_key = public_key or known.public_key
        return False


def tell_capabilities(state: ServerState, device: DeviceRow, capabilities: dict[str, Any]) -> None:
    """Keeps what a device says that it can do by now.

    Raises:
        InvalidSettingError: it has another form.
    """
    if capabilities == device.capabilities:
        return
    _check_capabilities(capabilities)
    with state.database.write() as session:
        _present(session, device.device).capabilities = capabilities
    device.capabilities = capabilities


def tell_public_key(state: ServerState, device: DeviceRow, public_key: str) -> None:
    """Keeps a device's public key in the place of the one that it said before.

    Raises:
        InvalidSettingError: it has another form.
    """
    if public_key == device.public_key:
        return
    _check_public_key(public_key)
    with state.database.write() as session:
        _present(session, device.device).public_key = public_key
    device.public_key = public_key


def _present(session: Session, device: str) -> DeviceRow:
    """The row of a device that may have been removed since it was let in: of that one, nothing is kept any more."""
    row = session.get_one(DeviceRow, device)
    if row.removed_at is not None:
        raise unknown_device()
    return row


def _check_public_key(public_key: str | None) -> None:
    if public_key is not None and not is_public_key(public_key):
        raise InvalidSettingError(
            "public_key expects the base64 of a SubjectPublicKeyInfo in DER of at most 512 bytes, got something else."
        )


def _check_capabilities(capabilities: dict[str, Any]) -> None:
    if _is_deeper(capabilities, _MOST_NESTED):  # before anything else goes into it
        raise InvalidSettingError(f"The capabilities expect at most {_MOST_NESTED} levels, got more.")
    try:
        json.dumps(capabilities, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InvalidSettingError("The capabilities hold half of a character, which is no text.") from error
    try:
        size = len(canonical_json(capabilities))
    except ValueError as error:
        raise InvalidSettingError("The capabilities hold a number that JSON cannot.") from error
    if size > _MAX_CAPABILITIES_BYTES:
        raise InvalidSettingError(f"The capabilities expect at most {_MAX_CAPABILITIES_BYTES} bytes, got {size}.")


def shown_capabilities(capabilities: Any) -> dict[str, Any]:
    """Returns what a device says of itself; nothing where an older server kept what no answer can hold."""
    try:
        _check_capabilities(capabilities)
    except InvalidSettingError:
        return {}
    return dict(capabilities)


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether JSON has more levels of lists and objects, itself among them; looks no deeper than those."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return inside is not None and (levels == 0 or any(_is_deeper(each, levels - 1) for each in inside))


def tell_of_double(state: ServerState, device: str) -> None:
    """Tells operators of a device that `ServerState.doubles` has noticed to exist twice."""
    _log.warning(
        "device %s exists twice: two processes use its identity in turn and lose each other's work; "
        "give one of them an empty state folder",
        device,
    )
    # The log has it; what could not be written now is noticed again in an hour.
    with contextlib.suppress(StorageError), state.database.write() as session:
        session.get_one(DeviceRow, device).doubled_at = state.date()


def doubled_devices(session: Session, since: float, population: str | None = None) -> list[dict[str, Any]]:
    """Devices that were seen to exist twice since a date, with when that was last."""
    rows = session.execute(
        select(DeviceRow.device, DeviceRow.population, DeviceRow.doubled_at)
        .where(DeviceRow.doubled_at >= since)
        .order_by(DeviceRow.device)
    )
    return [
        {"device": device, "population": where, "doubled_at": date}
        for device, where, date in rows
        if population in (None, where)
    ]


def has_form_of_credentials(text: str) -> bool:
    """Whether it may be a device's id and secret; what is not need not be looked up."""
    return _CREDENTIALS.fullmatch(text) is not None


def unknown_device() -> AuthenticationError:
    """The answer to whoever is no device of this server."""
    return AuthenticationError(
        "The device id or its secret is not known here.", hint="Ask the operator for a new invitation."
    )


def authenticate(state: ServerState, device: str, secret: str) -> DeviceRow:
    """The device that the credentials belong to.

    Raises:
        AuthenticationError: there is no such device, or the secret is another one.
    """
    with state.database.read() as session:
        known = session.scalar(select(DeviceRow).where(DeviceRow.device == device))
    expected = known.secret_hash if known is not None else "0" * 64
    if not hmac.compare_digest(expected, sha256(secret.encode())) or known is None:
        raise unknown_device()
    return known
