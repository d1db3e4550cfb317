"""Profiles of devices: how fast they are, how they are connected, when they are there, and who of them attacks.

A profile is a TOML file with one schema, shipped (`profiles/shipped/`) or a user's own, and may mix several kinds.
`schema.py` is what it says, `reading.py` reads and checks it, `availability.py` and `traces.py` are when devices are
there, `costs.py` is what a model asks of them, `deploying.py` puts it together for a fleet.
"""

from edgefl_simulation.profiles.costs import Cost, cost_of
from edgefl_simulation.profiles.deploying import Deployment
from edgefl_simulation.profiles.reading import SHIPPED, profile_of
from edgefl_simulation.profiles.schema import Attackers, Compute, DeviceProfile, FleetProfile, Network, Reliability

__all__ = [
    "SHIPPED",
    "Attackers",
    "Compute",
    "Cost",
    "Deployment",
    "DeviceProfile",
    "FleetProfile",
    "Network",
    "Reliability",
    "cost_of",
    "profile_of",
]
