"""A fleet on one machine: emulated devices that run what real devices run, and a run as a server has it.

    import edgefl

    history = edgefl.simulate("model.tflite", "digits", devices=20, partition="dirichlet:0.5", rounds=20, cohort=10)

`facade.py` is the call, `simulating.py` puts it together; `coordinator.py` is the run in simulated time, `engines/` is
where devices' work is computed, `partitioning/` and `data/` are who holds what, `profiles/` what devices are like.
`learning/` is TensorFlow Federated's loop on the same cores.
"""

from edgefl_simulation import learning
from edgefl_simulation.data import NAMED, DataSet, load_data
from edgefl_simulation.evaluating import Personalisation
from edgefl_simulation.facade import simulate
from edgefl_simulation.history import History
from edgefl_simulation.pace import Course, Pace, Steady, Work
from edgefl_simulation.partitioned import partition_data
from edgefl_simulation.partitioning import PARTITIONERS, Distribution, IdToSizeFnc, Partitioner
from edgefl_simulation.profiles import FleetProfile, profile_of
from edgefl_simulation.summing_up import federated_statistics

__all__ = [
    "NAMED",
    "PARTITIONERS",
    "Course",
    "DataSet",
    "Distribution",
    "FleetProfile",
    "History",
    "IdToSizeFnc",
    "Pace",
    "Partitioner",
    "Personalisation",
    "Steady",
    "Work",
    "federated_statistics",
    "learning",
    "load_data",
    "partition_data",
    "profile_of",
    "simulate",
]
