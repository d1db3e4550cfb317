"""A setting is a field of a dataclass that says its range and its help; checks, options and tables derive from it.

A part is a field that is an object of a registered class with settings of its own: a strategy's server optimizer, its
rule. By name, its settings lie beside those of the strategy, so that every combination has options and checks without a
class of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgefl.plugins import Registry
from edgefl_server.aggregation.ranges import (
    LARGEST,
    NORM_HINT,
    NORMS,
    SMALLEST,
    STEP_HINT,
    STEPS,
    Range,
    Setting,
    SettingError,
)

__all__ = [
    "LARGEST",
    "NORMS",
    "NORM_HINT",
    "SMALLEST",
    "STEPS",
    "STEP_HINT",
    "Part",
    "Range",
    "Setting",
    "SettingError",
    "build",
    "check_ranges",
    "check_usual",
    "part",
    "parts_of",
    "setting",
    "settings_of",
    "values_of",
]

_METADATA = "edgefl.setting"
_PART = "edgefl.part"
_KINDS = (bool, int, float, str)


def setting(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    lowest: float | None = None,
    highest: float = LARGEST,
    usual: tuple[float, float] | None = None,
    why: str | None = None,
    off: float | None = None,
    shown: str = "",
    hint: str | None = None,
    table: str = "",
    choices: tuple[str, ...] = (),
) -> Any:
    """A field of a dataclass that is a setting.

    Args:
        default: unless it is given.
        help: for ``--help``: one sentence.
        lowest: the smallest number possible; None: it is no number.
        highest: the largest one.
        usual: the range that new runs are held to; None: all that is possible.
        why: the hint to somebody who is outside of it.
        off: a value that stands for none.
        shown: what stands for the default in ``--help``.
        hint: to somebody who does not give it and has to.
        table: the text of the documentation's table.
        choices: the texts that it may be.
    """
    possible = None if lowest is None else Range(lowest, highest, None if usual else why)
    known = {
        "help": help,
        "shown": shown,
        "possible": possible,
        "usual": None if usual is None else Range(*usual, why),
        "off": off,
        "hint": hint,
        "table": table,
        "choices": choices,
    }
    return field(default=default, metadata={_METADATA: known})


@dataclass(frozen=True)
class Part:
    """Everything that is known of a field that is an object of a registered class.

    Attributes:
        name: the field's; also the setting that chooses the class, by its name in the registry.
        registry: of the classes.
        default: the name of the one that is taken unless another is given; of several, names divided by commas.
        help: one sentence; ``{names}`` stands for the names.
        fixed: there is nothing to choose: its settings are the owner's.
        several: the field is a tuple of any number of objects.
    """

    name: str
    registry: Registry[Any]
    default: str
    help: str = ""
    fixed: bool = False
    several: bool = False

    def classes(self, names: str) -> list[type]:
        """The classes of a name, or of names divided by commas.

        Raises:
            SettingError: there is none of that name, or one comes twice.
        """
        wanted = [each.strip() for each in names.split(",") if each.strip()] if self.several else [names]
        known = self.registry.names()
        for index, each in enumerate(wanted):
            if each not in known:
                raise SettingError(
                    f"{{{self.name}}} expects {'names among' if self.several else 'one of'} {', '.join(known)}, "
                    f"got {each!r:.80}.",
                    hint=self.registry.nearest(each),
                )
            if each in wanted[:index]:
                raise SettingError(f"{{{self.name}}} expects each name once, got {names!r:.80}.")
        return [self.registry.get(each) for each in wanted]

    def objects(self, value: Any) -> tuple[Any, ...]:
        """The objects that a value of the field is or holds."""
        return tuple(value) if self.several else (value,)


def part(registry: Registry[Any], default: str, *, help: str = "", fixed: bool = False, several: bool = False) -> Any:
    """A field of a dataclass that is an object of a registered class, or a tuple of them: see `Part`."""

    def made() -> Any:
        found = tuple(kind() for kind in Part("", registry, default, several=several).classes(default))
        return found if several else found[0]

    known = {"registry": registry, "default": default, "help": help, "fixed": fixed, "several": several}
    return field(default_factory=made, metadata={_PART: known})


def parts_of(owner: type) -> tuple[Part, ...]:
    """The parts of a dataclass, in the order of its fields."""
    fields = dataclasses.fields(owner)
    return tuple(Part(each.name, **each.metadata[_PART]) for each in fields if _PART in each.metadata)


def settings_of(owner: type) -> tuple[Setting, ...]:
    """The settings of a dataclass, in the order of its fields; in the place of a part its choice and its settings.

    One that several parts have is there once.

    Raises:
        TypeError: it is no dataclass, or a field that is a setting is no bool, int, float or str.
    """
    own: dict[str, Setting] = {each.name: each for each in _settings_of(owner)}
    parts = {each.name: each for each in parts_of(owner)}
    if not parts:
        return tuple(own.values())
    found: dict[str, Setting] = {}
    for each in dataclasses.fields(owner):
        if each.name in own:
            found[each.name] = own[each.name]
        elif each.name in parts:
            for one in _settings_of_part(parts[each.name], parts[each.name].registry.names()):
                found[one.name] = _both(found[one.name], one) if one.name in found else one
    return tuple(found.values())


def values_of(values: Any) -> dict[str, Any]:
    """The values of a dataclass's settings, by name; of its parts those of the objects that it has."""
    found = {each.name: getattr(values, each.name) for each in _own(values)}
    for each in parts_of(type(values)):
        objects = each.objects(getattr(values, each.name))
        if not each.fixed:
            found[each.name] = ",".join(_name_in(each.registry, one) for one in objects)
        for one in objects:
            found.update(values_of(one))
    return found


def build(owner: type, values: Mapping[str, Any]) -> Any:
    """An object of a dataclass from the values of its settings, those of its parts beside them.

    Args:
        owner: the dataclass.
        values: by name, as `values_of` has them; None stands for one that is not given.

    Raises:
        SettingError: one is outside its range, or none of the parts that are chosen has it.
    """
    given = {name: value for name, value in values.items() if value is not None}
    own = {each.name for each in _settings_of(owner)}
    arguments = {name: value for name, value in given.items() if name in own}
    used, parts = set(arguments), parts_of(owner)
    for each in parts:
        chosen = each.default if each.fixed else given.get(each.name, each.default)
        if not isinstance(chosen, str):
            raise SettingError(f"{{{each.name}}} expects text, got {chosen!r:.80}.")
        kinds = each.classes(chosen)
        theirs = [{one.name for one in settings_of(kind)} & given.keys() for kind in kinds]
        made = tuple(kind(**{name: given[name] for name in names}) for kind, names in zip(kinds, theirs, strict=True))
        arguments[each.name] = made if each.several else made[0]
        used.update({each.name}, *theirs)
    for name in sorted(given.keys() - used):
        having = [
            each.name
            for each in parts
            if any(one.name == name for one in _settings_of_part(each, each.registry.names()))
        ]
        chosen_ones = " and ".join(f"{{{each}}} {given.get(each) or 'as it is'}" for each in having)
        raise SettingError(f"{{{name}}} has no meaning with {chosen_ones or 'what is chosen'}.", hint="Leave it out.")
    return owner(**arguments)


def _both(one: Setting, other: Setting) -> Setting:
    """A setting that two parts have."""
    helps = dict.fromkeys((*one.help.rstrip(".").split("; "), *other.help.rstrip(".").split("; ")))
    return replace(one, help="; ".join(helps) + ".", owners=(*one.owners, *other.owners))


def _own(values: Any) -> tuple[Setting, ...]:
    owner: Any = type(values)
    return _settings_of(owner)


def _name_in(registry: Registry[Any], one: Any) -> str:
    return next(name for name in registry.names() if registry.get(name) is type(one))


@functools.cache
def _settings_of_part(of: Part, names: tuple[str, ...]) -> tuple[Setting, ...]:
    if of.fixed:
        return settings_of(of.registry.get(of.default))
    listed = ", ".join(names)
    choices = () if of.several else names
    found = [Setting(of.name, str, of.default, False, of.help.replace("{names}", listed), choices=choices)]
    having: dict[str, dict[str, Setting]] = {}
    for name in names:
        for each in settings_of(of.registry.get(name)):
            having.setdefault(each.name, {})[name] = each
    for name, owners in having.items():
        first = next(iter(owners.values()))
        helps = list(dict.fromkeys(each.help.rstrip(".") for each in owners.values()))
        defaults = tuple((owner, each.unless_given) for owner, each in owners.items())
        table = "; ".join(dict.fromkeys(each.table or each.help for each in owners.values()))
        found.append(
            Setting(name, first.kind, None, True, "; ".join(helps) + ".", table=table, part=of.name, owners=defaults)
        )
    return tuple(found)


@functools.cache
def _settings_of(owner: Any) -> tuple[Setting, ...]:
    hints = typing.get_type_hints(owner)
    found = []
    for each in sorted(dataclasses.fields(owner), key=lambda each: bool(each.kw_only)):  # a base class's come last
        if _METADATA in each.metadata:
            known: Mapping[str, Any] = each.metadata[_METADATA]
            named = typing.get_args(hints[each.name]) or (hints[each.name],)
            kinds = [kind for kind in named if kind is not type(None)]
            if len(kinds) != 1 or kinds[0] not in _KINDS:
                raise TypeError(f"The setting {each.name} of {owner.__name__} expects bool, int, float or str.")
            optional = type(None) in named
            found.append(Setting(each.name, kinds[0], each.default, optional, **known))
    return tuple(found)


def check_ranges(values: Any) -> None:
    """Refuses what cannot be computed with.

    Args:
        values: of a dataclass with settings.

    Raises:
        SettingError: a value is outside its range.
    """
    for each in _own(values):
        each.check(getattr(values, each.name), each.possible)


def check_usual(values: Any) -> None:
    """Refuses what can be computed with but that nobody can want.

    Args:
        values: of a dataclass with settings.

    Raises:
        SettingError: a value is outside its usual range.
    """
    for each in _own(values):
        each.check(getattr(values, each.name), each.usual)
    for of in parts_of(type(values)):
        for one in of.objects(getattr(values, of.name)):
            check_usual(one)
