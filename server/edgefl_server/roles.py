"""Says what operators may do: a role for each, and the rights that it has. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["ADMIN", "Operator", "Right", "Role", "least_role", "rights_of"]


class Role(str, Enum):
    """The kinds of operators, each with all that the ones before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def __str__(self) -> str:
        return str(self.value)


class Right(Enum):
    """A thing that an operator may do, in words that follow "may not"."""

    READ = "read"
    RUN = "create, pause, stop, extend or roll back runs"
    INVITE = "invite devices"
    TEND = "tag, block or limit devices"
    REMOVE = "remove devices or revoke invitations"
    APPOINT = "list, add or revoke operators"


_OWN = {
    Role.VIEWER: {Right.READ},
    Role.OPERATOR: {Right.RUN, Right.INVITE, Right.TEND},
    Role.ADMIN: {Right.REMOVE, Right.APPOINT},
}
"""The rights that each role has beside those of the roles before it."""


@dataclass(frozen=True)
class Operator:
    """Whoever has shown a key.

    Attributes:
        name: any text; to be escaped wherever it is shown.
        role: what it may do.
    """

    name: str
    role: Role

    def may(self, right: Right) -> bool:
        """Whether it may do this."""
        return right in rights_of(self.role)


ADMIN = Operator("admin", Role.ADMIN)
"""Whoever has the token of ``operator.json``."""


def rights_of(role: Role) -> frozenset[Right]:
    """All that a role may do."""
    order = list(Role)
    return frozenset(right for each in order[: order.index(role) + 1] for right in _OWN[each])


def least_role(right: Right) -> Role:
    """The first of the roles that may do this."""
    return next(role for role in Role if right in rights_of(role))
