"""FastAPI calls what it injects in a thread unless it is async, and a turn of a thread is dear."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from edgefl_server.http import device_routes, fleet_routes, operator_routes, people_routes

ROUTERS = (device_routes.router, fleet_routes.router, operator_routes.router, people_routes.router)
ROUTES = [route for router in ROUTERS for route in router.routes if type(route) is APIRoute]


def below(dependant: Dependant) -> Iterator[Dependant]:
    for each in dependant.dependencies:
        yield each
        yield from below(each)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_nothing_that_a_route_is_given_costs_a_thread(route: APIRoute) -> None:
    needed = [each.call for each in below(route.dependant)]
    assert needed
    assert [call for call in [route.endpoint, *needed] if not inspect.iscoroutinefunction(call)] == []
