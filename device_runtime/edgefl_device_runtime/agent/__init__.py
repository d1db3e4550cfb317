"""The client of a server: polls for work, trains on local data, sends what was learned. Imports no interpreter."""

from edgefl_device_runtime.agent.device import Device
from edgefl_device_runtime.agent.settings import Settings
from edgefl_device_runtime.agent.summary import Summary, TaskReport

__all__ = ["Device", "Settings", "Summary", "TaskReport"]
