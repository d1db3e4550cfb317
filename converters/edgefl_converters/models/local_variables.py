"""Parameters that never leave a device, found by the patterns that a user gave."""

from __future__ import annotations

from collections.abc import Sequence

from edgefl.errors import InvalidSettingError
from edgefl_converters.models.named_model import NamedModel, NamedVariable
from edgefl_converters.models.variable_patterns import choose

__all__ = ["local_variables"]


def local_variables(named: NamedModel, patterns: Sequence[str]) -> set[int]:
    """Identities of the variables that stay on the device.

    Raises:
        InvalidSettingError: a pattern matches no parameter, or no trained weight is left to share.
    """
    if not patterns:
        return set()
    variables = named.described
    trained = {id(each) for each in named.model.trainable_variables}

    def travels(each: NamedVariable) -> bool:
        is_statistic = any(each.variable is statistic for statistic in each.layer._non_trainable_variables)
        return id(each.variable) in trained or (each.layer.trainable and is_statistic)

    chosen = {id(variables[position].variable) for position in choose(patterns, variables, "`local`", also=travels)}
    if trained <= chosen:
        raise InvalidSettingError(
            "Every trained weight would stay on the device: nothing would be left to merge.",
            hint="Keep fewer layers with `local`, or train on one device without a server.",
        )
    return chosen
