"""A worker of the local engine: a process with one interpreter, which ends when its engine's process does.

python -m edgefl_simulation.engines.worker DESCRIPTOR
"""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import replace
from multiprocessing.connection import Connection

from edgefl.errors import EdgeflError, RuntimeFailure, first_line
from edgefl_simulation.engines.arena import Arena
from edgefl_simulation.engines.messages import Answers, Begin, Failure, Order, Orders, Ready, Reply, put, views
from edgefl_simulation.engines.performing import Performer

__all__ = ["work"]


def work(connection: Connection) -> None:
    """Does what it is told, until nobody tells anything any more."""
    try:
        begin: Begin = connection.recv()
        try:
            performer = Performer(begin.setup)
        except EdgeflError as error:
            connection.send(Failure(error))
            return
        connection.send(Ready())
        arena = Arena(begin.descriptor, begin.elements)
        while True:
            orders: Orders = connection.recv()
            began = time.perf_counter()
            answers = [_done(performer, arena, order) for order in orders]
            connection.send(Answers(answers, time.perf_counter() - began))
    except (EOFError, ConnectionError):
        return


def _done(performer: Performer, arena: Arena, order: Order) -> Reply | Failure:
    try:
        worked = performer.do(order.job, views(order.places, arena.view(order.base)))
    except EdgeflError as error:
        return Failure(error)
    except Exception as error:  # not every library's errors can travel
        return Failure(RuntimeFailure(f"A worker failed: {type(error).__name__}: {first_line(error)}"))
    if worked.update is None:
        return Reply(worked, {})
    vectors = {name: worked.update.section(name) for name in worked.update.sections}
    places = put(vectors, arena.view(order.result))
    return Reply(replace(worked, update=replace(worked.update, sections={})), places)


if __name__ == "__main__":
    # Ctrl-C goes to all processes of a terminal; the engine's own says what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    work(Connection(int(sys.argv[1])))
