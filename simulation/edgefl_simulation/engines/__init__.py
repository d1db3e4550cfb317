"""Engines: where the devices' work is computed; one comes here to add another. The same bits from each.

An engine knows nothing of rounds. It is given vectors to start from and jobs, and gives back what each left.
"""

from edgefl_simulation.engines.base import Engine, Job, Setup, Tuning, Worked
from edgefl_simulation.engines.in_process import InProcess
from edgefl_simulation.engines.local import Local

__all__ = ["Engine", "InProcess", "Job", "Local", "Setup", "Tuning", "Worked", "start_engine"]


def start_engine(setup: Setup, workers: int) -> Engine:
    """Starts an engine on this machine: in this process with one worker, else with so many processes beside it."""
    return InProcess(setup) if workers == 1 else Local(setup, workers)
