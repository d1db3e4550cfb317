"""All that a cohort has open between two folds, where it goes on from one to the next: a run goes on exactly there."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from edgefl.wire.messages import Task
from edgefl_server.aggregation import Assignment, AssignmentState, FoldState, Standing, StrategyState
from edgefl_simulation.pace import Course

__all__ = ["OpenTask", "UnderWay"]


@dataclass(frozen=True)
class OpenTask:
    """A task that a device is at. What comes of it is computed again, to the same bits.

    Attributes:
        device: which.
        task: what it was given.
        course: when it does what.
        bytes_down: that it fetches for it.
    """

    device: str
    task: Task
    course: Course
    bytes_down: int


@dataclass(frozen=True)
class UnderWay:
    """A cohort between two folds, with all that it has open.

    Attributes:
        standing: of the cohort and the fold that it works for, of which nothing has come yet.
        tasks: the latest of each device.
        open: those that devices are at, in the order in which they were handed out.
        coming: when something is to be looked at, in order, and which of the open tasks; -1: one that is over by now.
        taken: how many devices have asked for work.
        look_at: when the schedule is to be asked again.
        marks: of the patience: until when there is hope, and since when nothing came.
        versions: what open tasks began from, by number.
    """

    standing: Standing
    tasks: tuple[Assignment, ...]
    open: tuple[OpenTask, ...]
    coming: tuple[tuple[float, int], ...]
    taken: int
    look_at: float
    marks: tuple[float, float]
    versions: Mapping[int, StrategyState]

    def to_json(self) -> dict[str, Any]:
        """All but the versions as plain values."""
        return {
            "standing": {**vars(self.standing), "state": self.standing.state.value},
            "tasks": [{**vars(each), "state": each.state.value} for each in self.tasks],
            "open": [
                {
                    "device": each.device,
                    "task": base64.b64encode(each.task.encode()).decode(),
                    "course": asdict(each.course),
                    "bytes_down": each.bytes_down,
                }
                for each in self.open
            ],
            "coming": self.coming,
            "taken": self.taken,
            "look_at": self.look_at,
            "marks": self.marks,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any], versions: Mapping[int, StrategyState]) -> UnderWay:
        """Reads what `to_json` wrote.

        Raises:
            ValueError, LookupError, TypeError, AttributeError, MessageError: it is no such thing.
        """
        standing = Standing(**{**document["standing"], "state": FoldState(document["standing"]["state"])})
        tasks = tuple(Assignment(**{**each, "state": AssignmentState(each["state"])}) for each in document["tasks"])
        open_tasks = tuple(_open_task(each) for each in document["open"])
        coming = tuple((float(time), int(place)) for time, place in document["coming"])
        if any(not -1 <= place < len(open_tasks) for _, place in coming):
            raise ValueError("something is to come of a task that is not there")
        if lacking := {each.task.version for each in open_tasks} - versions.keys():
            raise ValueError(f"it lacks version {min(lacking)}, from which a task began")
        devices = {each.device for each in tasks if each.state is AssignmentState.OPEN}
        if devices != {each.device for each in open_tasks} or not standing.open == len(devices) == len(open_tasks):
            raise ValueError("its open tasks are not those of its devices")
        hopeful_at, latest = map(float, document["marks"])
        return cls(
            standing,
            tasks,
            open_tasks,
            coming,
            int(document["taken"]),
            float(document["look_at"]),
            (hopeful_at, latest),
            versions,
        )

    @property
    def continued(self) -> set[str]:
        """The tasks from the end of which the open ones go on."""
        return {each.task.continues for each in self.open if each.task.continues}


def _open_task(entry: Mapping[str, Any]) -> OpenTask:
    course = Course(**entry["course"])
    silences = tuple((float(start), float(end)) for start, end in course.silences)
    if math.isnan(course.began + course.received + course.computed):
        raise ValueError("a task takes no time that is a number")
    task = Task.decode(base64.b64decode(entry["task"], validate=True))
    return OpenTask(str(entry["device"]), task, replace(course, silences=silences), int(entry["bytes_down"]))
