"""Decides whether this device does a task: whether it can, and whether its owner lets it."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

from edgefl.algorithms import check_plain_sgd, correcting
from edgefl.codecs import codec, is_codec, part_names
from edgefl.errors import EdgeflError, HashMismatchError, InvalidSettingError
from edgefl.manifest import ModelManifest
from edgefl.wire.calls import LONGEST_ASKED
from edgefl.wire.messages import BatchPolicy, Correction, OptimizerState, Reason, Task, TaskKind, Weighting
from edgefl_device_runtime.tasks.corrections import learning_rate_of
from edgefl_device_runtime.tasks.examples import Examples

__all__ = [
    "ALLOWED",
    "MINIMUM_EXAMPLES",
    "SUPPORTED_KINDS",
    "DeadlinePassedError",
    "TaskDeclinedError",
    "allowed_kinds",
    "capabilities",
    "check_allowed",
    "check_deadline",
    "check_enough",
    "check_fits",
    "check_supported",
    "memory_bytes",
]

SUPPORTED_KINDS = (TaskKind.TRAIN, TaskKind.EVALUATE, TaskKind.STATISTICS, TaskKind.GRADIENT)
MINIMUM_EXAMPLES = 2
"""So many, unless the owner says otherwise."""
ALLOWED = ("train", "evaluate", "statistics")
"""The work that an owner may allow a device: all of it, unless the owner says otherwise. A gradient is training too."""


class TaskDeclinedError(EdgeflError):
    """This device does not do a task.

    Args:
        reason: what the server is told.
        message: what the device's owner is told.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class DeadlinePassedError(EdgeflError):
    """The task's deadline passed before it was done."""


def allowed_kinds(allowed: Collection[str]) -> tuple[TaskKind, ...]:
    """Returns the kinds of tasks that an owner lets a device do.

    Args:
        allowed: of `ALLOWED`.

    Raises:
        InvalidSettingError: there is something else among it, or nothing.
    """
    unknown = [each for each in allowed if each not in ALLOWED]
    if unknown or not allowed:
        raise InvalidSettingError(
            f"Expected some of {', '.join(ALLOWED)} as what this device does, got {', '.join(unknown) or 'nothing'}.",
            hint="All of them are done where nothing is said.",
        )
    return tuple(kind for kind in SUPPORTED_KINDS if _owners_word(kind) in allowed)


def check_allowed(task: Task, kinds: Collection[TaskKind]) -> None:
    """Makes sure that the owner lets this device do a task of a kind that it knows.

    Raises:
        TaskDeclinedError: the owner does not.
    """
    if task.kind not in kinds:
        done = dict.fromkeys(map(_owners_word, kinds))
        raise TaskDeclinedError(
            Reason.UNSUPPORTED_TASK,
            f"Its owner lets this device do tasks of {', '.join(done)} alone, and this is one of "
            f"{_owners_word(task.kind)}.",
        )


def _owners_word(kind: TaskKind | int) -> str:
    return "train" if kind == TaskKind.GRADIENT else TaskKind(kind).name.lower()


def capabilities(kinds: Collection[TaskKind] = SUPPORTED_KINDS) -> dict[str, list[str]]:
    """Lists what this version can be asked for, by the protocol's names: see `edgefl.capabilities`.

    Args:
        kinds: of the tasks that the owner lets it do.
    """
    return {
        "kinds": [kind.name.lower() for kind in kinds],
        "corrections": [correction.name.lower() for correction in Correction],
        "weightings": [weighting.name.lower() for weighting in Weighting],
        "codecs": list(part_names()),
        "payloads": [],
    }


def check_deadline(task: Task, seconds: float) -> None:
    """Makes sure that somebody still waits for the task.

    Args:
        task: with its deadline; 0: there is none.
        seconds: since it was received.

    Raises:
        DeadlinePassedError: nobody does.
    """
    if 0 < task.deadline_seconds < seconds:
        raise DeadlinePassedError(f"Its deadline of {task.deadline_seconds:g} s passed before it was done.")


def check_supported(task: Task) -> None:
    """Makes sure that this version knows everything that the task asks for.

    Raises:
        TaskDeclinedError: it does not.
    """
    if task.kind not in SUPPORTED_KINDS:
        raise _unsupported(f"its kind is {task.kind!r}")
    for each in task.codecs:
        if not is_codec(each.codec):
            raise _unsupported(f"its codec of the section {each.section!r} is {each.codec!r}")
        if codec(each.codec).memory and not _may_remember(task, each.section):
            raise _unsupported(
                f"its codec {each.codec!r} remembers what it leaves out, which goes with deltas, and without a "
                "correction or clipping"
            )
    if not isinstance(task.weighting, Weighting):
        raise _unsupported(f"its weighting is {task.weighting!r}")
    if task.session:
        # Alone it would look like any other task, and its outcome would go out without what the session is to do to it.
        raise _unsupported("it is one of several that belong together")
    if task.payloads:
        raise _unsupported(f"it comes with {', '.join(each.name for each in task.payloads)}")
    if not isinstance(task.batch_policy, BatchPolicy):
        raise _unsupported(f"its batch policy is {task.batch_policy!r}")
    if task.optimizer_state != OptimizerState.RESET:
        raise _unsupported("it wants optimizer slots kept between tasks")
    numbers = {
        "mu": task.mu,
        "clip norm": task.clip_norm,
        "longest time": task.max_seconds,
        "deadline": task.deadline_seconds,
        "learning rate": task.learning_rate or 0.0,
        "share for tests": task.local_test,
    }
    for name, value in numbers.items():
        if not math.isfinite(value) or value < 0:
            raise _unsupported(f"its {name} is {value:g}")
    if not task.local_test < 1:
        raise _unsupported(f"its share for tests is {task.local_test:g}")
    if not isinstance(task.correction, Correction):
        raise _unsupported(f"its correction is {task.correction!r}")
    names = [each.name for each in task.extra_vectors]
    needs = correcting(task.correction)
    if names != list(needs.vectors):
        raise _unsupported(f"it names the further vectors {', '.join(names) or 'none'}")
    if needs.proximal and task.mu == 0:
        raise _unsupported(f"{needs.title} expects mu above 0")
    if task.correction is not Correction.NONE and (task.kind != TaskKind.TRAIN or task.clip_norm > 0):
        raise _unsupported("a correction goes with training, and without clipping")


def check_fits(task: Task, manifest: ModelManifest) -> None:
    """Makes sure that the model file, and what the server says, suffice for what the task asks for.

    Raises:
        HashMismatchError: the task names another model.
        TaskDeclinedError: they do not suffice.
    """
    if manifest.layout_hash != task.layout_hash or manifest.graph_hash != task.graph_hash:
        raise HashMismatchError("The task names another graph or layout than its model file has.")
    if manifest.layout.weight_size == 0:
        raise TaskDeclinedError(Reason.UNSUPPORTED_MODEL, "Every weight of the model stays on the device.")
    if task.batch_size > manifest.batch_size:
        raise _unsupported(f"it wants batches of {task.batch_size} rows, the model takes {manifest.batch_size}")
    remembers = manifest.local_parameters or task.correction is not Correction.NONE or _has_residual(task)
    if task.continues is None and remembers:
        raise _unsupported("the server does not say which task it continues")
    if len(task.run) > LONGEST_ASKED and memory_bytes(task, manifest):
        # Nobody would ever tell that the run is over, and what is kept of it would lie here for ever.
        raise _unsupported(f"something has to be kept of its run, whose id has more than {LONGEST_ASKED} characters")
    lacking = [
        what
        for what, wanted, there in (
            ("proximal term", task.mu > 0, manifest.has_proximal_term),
            ("correction", task.correction is not Correction.NONE, manifest.has_correction),
            ("gradient", task.kind == TaskKind.GRADIENT, manifest.has_gradient),
        )
        if wanted and not there
    ]
    if lacking:
        raise TaskDeclinedError(Reason.UNSUPPORTED_MODEL, f"The model file was made without a {lacking[0]}.")
    needs = correcting(task.correction)
    if needs.plain_sgd:
        try:
            check_plain_sgd(manifest.optimizer)
        except InvalidSettingError as error:
            raise TaskDeclinedError(Reason.UNSUPPORTED_MODEL, error.message) from error
        if not learning_rate_of(task, manifest) > 0:
            raise _unsupported(f"{needs.title} expects a learning rate above 0")


def memory_bytes(task: Task, manifest: ModelManifest) -> int:
    """Says about how many bytes are kept of the run when the task is done: see `RunMemory`."""
    if task.kind != TaskKind.TRAIN:
        return 0
    local = sum(math.prod(each.shape) for each in manifest.local_parameters)
    vectors = int(task.correction is not Correction.NONE) + int(_has_residual(task))
    return 4 * (local + vectors * manifest.layout.weight_size)


def check_enough(task: Task, manifest: ModelManifest, examples: Examples, minimum: int) -> None:
    """Makes sure that an outcome comes of so many examples that the owner lets it go.

    One example behind a dense layer can be read from its update, exactly. What counts are examples that are sure to
    take part: those of weight 0 do not, nor those that a task with a limit never comes to. Which ones these are is
    drawn, so all of weight 0 are taken to be among those that it does come to.

    Raises:
        TaskDeclinedError: it does not.
    """
    count = examples.rows
    if task.kind == TaskKind.TRAIN and (task.max_steps or task.max_seconds):
        batch = task.batch_size or manifest.batch_size
        # In max_seconds there may be time for a single step.
        count = min(count, batch * (1 if task.max_seconds else task.max_steps))
    if examples.sample_weight is not None:
        count = max(0, count - examples.rows + int(np.count_nonzero(examples.sample_weight)))
    if examples.rows and count < minimum:
        raise TaskDeclinedError(
            Reason.NOT_READY,
            f"The task would be done with {count} {'example' if count == 1 else 'examples'}, and this device takes "
            f"part with at least {minimum} (its minimum of examples).",
        )


def _has_residual(task: Task) -> bool:
    return codec(task.coding("delta").codec).memory


def _may_remember(task: Task, section: str) -> bool:
    """Whether what is left out of a section is added to the next one as it is."""
    return section == "delta" and task.correction is Correction.NONE and task.clip_norm == 0


def _unsupported(what: str) -> TaskDeclinedError:
    return TaskDeclinedError(Reason.UNSUPPORTED_TASK, f"This version does not know how to do the task: {what}.")
