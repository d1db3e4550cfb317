"""Engines: where the devices' work is computed; one comes here to add another. The same bits from each.

An engine knows nothing of rounds. It is given vectors to start from and jobs, and gives back what each left.
"""

from edgefl_device_runtime.training.threads import physical_cores
from edgefl_simulation.engines.base import Engine, Job, Setup, Tuning, Worked
from edgefl_simulation.engines.in_process import InProcess
from edgefl_simulation.engines.local import Local
from edgefl_simulation.engines.ray import Ray

__all__ = ["Engine", "InProcess", "Job", "Local", "Ray", "Setup", "Tuning", "Worked", "start_engine"]


def start_engine(name: str, setup: Setup, workers: int, at_once: int, ray_address: str = "") -> Engine:
    """Starts an engine.

    Args:
        name: ``local``: on this machine, in this process with one worker, else with so many processes beside it;
            ``ray``: on a Ray cluster; ``http``: in this process, since devices that a server leads work elsewhere, and
            only the evaluation is done here.
        setup: what all jobs have in common.
        workers: how many; 0: one for each processor, of this machine or of the cluster.
        at_once: jobs at a time: more workers would have nothing to do.
        ray_address: of the cluster, see `RayConnection`.

    Raises:
        EdgeflError: what the engine raises.
    """
    here = min(physical_cores(), at_once)
    if name == "ray":
        return Ray(setup, workers, at_once, here, ray_address)
    return InProcess(setup) if name == "http" or (workers or here) == 1 else Local(setup, workers or here)
