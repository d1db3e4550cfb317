"""Invitations, with which devices enrol. Of a token only the hash is kept; its beginning is how people name one."""

from __future__ import annotations

import re
import secrets
from typing import Any

from sqlalchemy import or_, select, update

from edgefl.errors import AuthenticationError, InvalidSettingError
from edgefl.hashing import sha256
from edgefl.wire.refusals import Refusal
from edgefl.wire.words import INVITATION_ID, is_short_name
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.state import ServerState
from edgefl_server.storage.tables import InvitationRow

__all__ = [
    "EnrolmentRefusedError",
    "check_invitation",
    "check_population",
    "find_invitation",
    "has_form_of_invitation",
    "invitation_id",
    "invite",
    "list_invitations",
    "require_open",
    "revoke_invitation",
    "use_invitation",
    "wrong_token",
]

_INVITATION = re.compile(r"[A-Za-z0-9_-]{43}")
_ID_LENGTH = 12
_LONGEST_LABEL = 200
_MOST_USES = 10**9


class EnrolmentRefusedError(AuthenticationError):
    """A device may not enrol.

    Args:
        code: of docs/protocol.md: ``wrong_token``, ``wrong_population`` or ``identity_taken``.
        message: expected and got.
        hint: what the device's owner can do.
    """

    def __init__(self, code: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


def check_population(population: str) -> str:
    """Returns the name if it is one.

    Raises:
        InvalidSettingError: it is not.
    """
    if not is_short_name(population):
        raise InvalidSettingError(
            "A population's name expects 1 to 64 letters, digits, dots, dashes and underscores, "
            f"got {population!r:.80}."
        )
    return population


def invite(
    state: ServerState,
    population: str,
    *,
    uses: int | None = None,
    seconds: float | None = None,
    label: str = "",
    made_by: str = "",
) -> str:
    """Makes a token with which devices can enrol in a population; older ones stay valid.

    Args:
        state: the server's.
        population: whose.
        uses: how many devices may; None: any number.
        seconds: how long; None: until it is revoked.
        label: any text, by which people know it again.
        made_by: the operator's name.

    Raises:
        InvalidSettingError: a value is outside of its range.
    """
    check_population(population)
    if uses is not None and not 1 <= uses <= _MOST_USES:
        raise InvalidSettingError(f"An invitation is for 1 or more devices, got {uses}.")
    if seconds is not None and not seconds > 0:
        raise InvalidSettingError(f"An invitation expires after more than 0 seconds, got {seconds:g}.")
    if len(label) > _LONGEST_LABEL or "\0" in label or any("\ud800" <= each <= "\udfff" for each in label):
        raise InvalidSettingError(f"A label expects at most {_LONGEST_LABEL} characters, got {label!r:.80}.")
    token, now = secrets.token_urlsafe(32), state.date()
    with state.database.write() as session:
        session.add(
            InvitationRow(
                token_hash=sha256(token.encode()),
                population=population,
                created_at=now,
                label=label,
                made_by=made_by,
                uses=uses,
                used=0,
                expires_at=None if seconds is None else now + seconds,
                revoked_at=None,
            )
        )
    return token


def list_invitations(state: ServerState) -> list[dict[str, Any]]:
    """All invitations, oldest first, without tokens."""
    now = state.date()
    with state.database.read() as session:
        query = select(InvitationRow).order_by(InvitationRow.created_at, InvitationRow.token_hash)
        rows = session.scalars(query).all()
    return [
        {
            "id": invitation_id(row),
            "population": row.population,
            "label": row.label,
            "made_by": row.made_by,
            "state": _why_over(row, now) or "open",
            "uses": row.uses,
            "used": row.used,
            "created_at": row.created_at,
            "expires_at": row.expires_at,
            "revoked_at": row.revoked_at,
        }
        for row in rows
    ]


def revoke_invitation(state: ServerState, which: str) -> None:
    """Lets nobody enrol with an invitation any more; devices that have stay.

    Args:
        state: the server's.
        which: its id, as `list_invitations` has it.

    Raises:
        InvalidSettingError: there is none.
    """
    with state.database.write() as session:
        of_id = select(InvitationRow).where(InvitationRow.token_hash.startswith(which))
        rows = list(session.scalars(of_id)) if re.fullmatch(INVITATION_ID, which) else []
        if not rows:
            raise InvalidSettingError(
                f"There is no invitation {which!r:.80}.", hint="`edgefl server invitations list` names all."
            )
        for row in rows:
            row.revoked_at = row.revoked_at or state.date()


def find_invitation(session: Session, token: str, population: str) -> InvitationRow:
    """The invitation whose token it is.

    Raises:
        EnrolmentRefusedError: there is none, or it is for another population.
    """
    # Looked up by hash: what timing tells about a hash does not help to guess the token.
    found = session.get(InvitationRow, sha256(token.encode()))
    if found is None:
        raise wrong_token()
    if found.population != population:
        raise EnrolmentRefusedError(
            Refusal.WRONG_POPULATION,
            f"The token is for another population than {population!r}.",
            hint="Use the population that the invitation names.",
        )
    return found


def use_invitation(session: Session, token: str, population: str, now: float) -> InvitationRow:
    """Counts a device that enrols, in the transaction that takes it in.

    Raises:
        EnrolmentRefusedError: see `find_invitation` and `require_open`.
    """
    found = find_invitation(session, token, population)
    # The condition is the database's to check: so many processes may enrol devices at once as like.
    counted = session.execute(
        update(InvitationRow)
        .where(
            InvitationRow.token_hash == found.token_hash,
            InvitationRow.revoked_at.is_(None),
            or_(InvitationRow.expires_at.is_(None), InvitationRow.expires_at > now),
            or_(InvitationRow.uses.is_(None), InvitationRow.used < InvitationRow.uses),
        )
        .values(used=InvitationRow.used + 1)
        .execution_options(synchronize_session=False)
    )
    if counted.rowcount != 1:
        require_open(found, now)
        raise _over("used up")
    return found


def require_open(invitation: InvitationRow, now: float) -> None:
    """Refuses an invitation with which nobody new may enrol.

    Raises:
        EnrolmentRefusedError: it was revoked, has expired, or is used up.
    """
    if (why := _why_over(invitation, now)) is not None:
        raise _over(why)


def invitation_id(invitation: InvitationRow) -> str:
    """The name of an invitation among people: it gives no right, and nobody can choose it."""
    return invitation.token_hash[:_ID_LENGTH]


def _why_over(row: InvitationRow, now: float) -> str | None:
    if row.revoked_at is not None:
        return "revoked"
    if row.expires_at is not None and row.expires_at <= now:
        return "expired"
    return "used up" if row.uses is not None and row.used >= row.uses else None


def _over(why: str) -> EnrolmentRefusedError:
    said = {"revoked": "was revoked", "expired": "has expired"}.get(why, "has let in as many devices as it was for")
    return EnrolmentRefusedError(
        Refusal.INVITATION_OVER, f"The invitation {said}.", hint="Ask the operator for a new one."
    )


def has_form_of_invitation(text: str) -> bool:
    """Whether it may be an invitation's token; what is not need not be looked up."""
    return _INVITATION.fullmatch(text) is not None


def check_invitation(state: ServerState, token: str) -> None:
    """Says before the rest of an enrolment is read whether its token is one of this server's.

    Raises:
        EnrolmentRefusedError: it is not.
    """
    with state.database.read() as session:
        if session.get(InvitationRow, sha256(token.encode())) is None:
            raise wrong_token()


def wrong_token() -> EnrolmentRefusedError:
    """The answer to whoever has no invitation."""
    return EnrolmentRefusedError(
        Refusal.WRONG_TOKEN, "The token is not one of this server's.", hint="Ask for a new `edgefl server invite`."
    )
