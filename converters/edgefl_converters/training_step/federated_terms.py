"""Makes what a training step adds to the gradient for federated algorithms that need the device's help.

FedProx (Li et al. 2020, section 3.2) adds ``mu (w - reference)``, the gradient of ``mu / 2 |w - reference|²``. SCAFFOLD
(Karimireddy et al. 2020, Algorithm 1) adds a correction ``c - c_i`` that the device computes. FedDyn (Acar et al. 2021,
Algorithm 1) adds both. FedSGD (McMahan et al. 2017, section 2) wants the gradient itself.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from edgefl.algorithms import ALGORITHMS, algorithm, check_plain_sgd
from edgefl.errors import InvalidSettingError

__all__ = ["FederatedTerms", "federated_terms_of", "require_algorithms"]


@dataclass(frozen=True)
class FederatedTerms:
    """Vectors as large as the shared weights that a training step looks at; only there for algorithms that need them.

    Attributes:
        weights: Keras's trainable variables that travel.
        reference: for each its value at the start of the task; empty without a proximal term.
        correction: for each what is added to its gradient; empty without.
        gradient: True where the file can give the gradient instead of a trained delta.
    """

    weights: tuple[Any, ...] = ()
    reference: tuple[tf.Variable, ...] = ()
    correction: tuple[tf.Variable, ...] = ()
    gradient: bool = False

    @property
    def proximal(self) -> bool:
        """True where ``train`` takes ``mu``."""
        return bool(self.reference)

    def added_to(self, gradients: Sequence[Any], variables: Sequence[Any], mu: tf.Tensor | None) -> list[Any]:
        """The gradients of a step with what the algorithms add.

        Args:
            gradients: one for each variable; None where the loss does not depend on it.
            variables: Keras's trainable variables.
            mu: weight of the proximal term, a scalar; None without.
        """
        if not self.reference and not self.correction:
            return list(gradients)
        place = {id(variable): index for index, variable in enumerate(self.weights)}
        added = []
        for gradient, variable in zip(gradients, variables):
            index = place.get(id(variable))
            if index is not None and gradient is not None:
                gradient = tf.convert_to_tensor(gradient)
                if self.reference:
                    gradient += mu * (variable.value - self.reference[index])
                if self.correction:
                    gradient += self.correction[index]
            added.append(gradient)
        return added


def federated_terms_of(model: Any, algorithms: Collection[str], local: Collection[int]) -> FederatedTerms:
    """The vectors that some algorithms need for a model.

    Args:
        model: built.
        algorithms: of `ALGORITHMS`.
        local: identities of the variables that never travel: no algorithm reaches them.
    """
    chosen = [algorithm(name) for name in algorithms]
    proximal, corrected = any(each.proximal for each in chosen), any(each.corrected for each in chosen)
    weights = tuple(each for each in model.trainable_variables if id(each) not in local)
    values = [each.value for each in weights] if proximal or corrected else []
    return FederatedTerms(
        weights,
        tuple(tf.Variable(value, trainable=False) for value in values) if proximal else (),
        tuple(tf.Variable(tf.zeros_like(value), trainable=False) for value in values) if corrected else (),
        any(each.gradient for each in chosen),
    )


def require_algorithms(algorithms: Sequence[str], optimizer: Any, *, local: bool) -> None:
    """Refuses algorithms that do not exist or do not fit.

    Args:
        algorithms: as the user named them.
        optimizer: the compiled one.
        local: whether parameters stay on the device.

    Raises:
        InvalidSettingError: a name is unknown, two settings contradict each other, or the formula of an algorithm does
            not hold for the optimizer.
    """
    for name in algorithms:
        if name not in ALGORITHMS:
            near = difflib.get_close_matches(str(name).lower().replace("-", ""), ALGORITHMS, n=1, cutoff=0.4)
            raise InvalidSettingError(
                f"There is no algorithm {name!r} that a model file has to be made for.",
                hint=f"Did you mean {near[0]!r}?" if near else f"Expected one of {', '.join(ALGORITHMS)}.",
            )
    if any(algorithm(name).plain_sgd for name in algorithms):
        check_plain_sgd({"class_name": type(optimizer).__name__, "config": optimizer.get_config()})
    if local and any(algorithm(name).gradient for name in algorithms):
        raise InvalidSettingError(
            "FedSGD sends a gradient and trains nothing on the device, so parameters that stay there never change.",
            hint="Leave out `local` or `algorithms='fedsgd'`.",
        )
