"""A fleet on one machine: emulated devices that run what real devices run, and a run as a server has it.

    import edgefl

    history = edgefl.simulate("model.tflite", "digits", devices=20, partition="dirichlet:0.5", rounds=20, cohort=10)

`simulating.py` puts it together; `coordinator.py` is the run in simulated time, `engines/` is where devices' work is
computed, `partitioning/` and `data/` are who holds what, `profiles/` what devices are like.
"""

from edgefl_simulation.data import NAMED, DataSet, load_data
from edgefl_simulation.history import History
from edgefl_simulation.pace import Course, Pace, Steady, Work
from edgefl_simulation.partitioning import PARTITIONERS, Partitioner
from edgefl_simulation.profiles import FleetProfile, profile_of
from edgefl_simulation.simulating import simulate

__all__ = [
    "NAMED",
    "PARTITIONERS",
    "Course",
    "DataSet",
    "FleetProfile",
    "History",
    "Pace",
    "Partitioner",
    "Steady",
    "Work",
    "load_data",
    "profile_of",
    "simulate",
]
