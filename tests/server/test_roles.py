from __future__ import annotations

import pytest

from edgefl_server.roles import ADMIN, Operator, Right, Role, least_role, rights_of


def test_each_role_may_all_that_the_one_before_may_and_more() -> None:
    viewer, operator, admin = map(rights_of, Role)
    assert viewer == {Right.READ}
    assert viewer < operator < admin
    assert admin == set(Right)


@pytest.mark.parametrize(
    ("right", "role"),
    [
        (Right.READ, Role.VIEWER),
        (Right.RUN, Role.OPERATOR),
        (Right.INVITE, Role.OPERATOR),
        (Right.TEND, Role.OPERATOR),
        (Right.REMOVE, Role.ADMIN),
        (Right.APPOINT, Role.ADMIN),
    ],
)
def test_the_least_role_of_a_right_is_the_first_that_has_it(right: Right, role: Role) -> None:
    assert least_role(right) is role
    assert [Operator("x", each).may(right) for each in Role] == [
        each in list(Role)[list(Role).index(role) :] for each in Role
    ]


def test_whoever_has_the_token_of_the_file_may_everything() -> None:
    assert all(map(ADMIN.may, Right))
