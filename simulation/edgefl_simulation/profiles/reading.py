"""Reads profiles: shipped ones by name, a user's own from a TOML file or plain values; every key and number is checked.

summary = "Two of three at home, one in a pocket"

[[devices]]
like = "pi4"
share = 0.667

[[devices]]
like = "phone"
share = 0.333
network = { up_mbit_s = 2.0 }

[[attackers]]
kind = "sign-flip"
share = 0.1
"""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from edgefl.errors import InvalidSettingError
from edgefl_server.aggregation import SettingError
from edgefl_server.aggregation.hyperparameters import settings_of, values_of
from edgefl_simulation.attacks import ATTACKS
from edgefl_simulation.profiles.availability import AVAILABILITIES, Always, Availability
from edgefl_simulation.profiles.schema import Attackers, Compute, DeviceProfile, FleetProfile, Network, Reliability
from edgefl_simulation.profiles.traces import read_trace

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["SHIPPED", "profile_of"]

_FOLDER = resources.files("edgefl_simulation.profiles") / "shipped"
SHIPPED = tuple(sorted(each.name.removesuffix(".toml") for each in _FOLDER.iterdir() if each.name.endswith(".toml")))
"""The names of the profiles that edgefl brings along."""
_TABLES: Mapping[str, type[Any]] = {"compute": Compute, "network": Network, "reliability": Reliability}
_TOP = ("summary", "devices", "attackers")
_DEVICE = ("name", "like", "share", "summary", *_TABLES, "availability", "sources")
_SHARES_ADD_UP = 1e-3
"""Shares are written with few digits."""

T = TypeVar("T")
Table = Mapping[str, Any]


def profile_of(given: str | Path | Table | FleetProfile) -> FleetProfile:
    """Reads a profile.

    Args:
        given: the name of a shipped one, the path of a TOML file, its contents, or a profile as it is.

    Raises:
        InvalidSettingError: there is none of that name, a key is not known, or a value is none; the message names it.
        DataError: a trace file does not fit.
    """
    if isinstance(given, FleetProfile):
        return given
    if isinstance(given, Mapping):
        return _fleet(given, "profile", "profile", Path())
    if str(given) in SHIPPED:
        return _shipped(str(given))
    return _own(Path(given))


def _shipped(name: str) -> FleetProfile:
    text = (_FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    return _fleet(tomllib.loads(text), name, name, Path())


def _own(path: Path) -> FleetProfile:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidSettingError(
            f"There is no profile and no file {str(path)!r:.200}; shipped are {', '.join(SHIPPED)}.",
            hint=_nearest(str(path), SHIPPED),
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidSettingError(f"{path} is no TOML: {error}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettingError(f"The profile {path} cannot be read: {error}.") from error
    return _fleet(document, path.stem, str(path), path.parent)


def _fleet(table: Table, name: str, where: str, folder: Path) -> FleetProfile:
    _check_keys(table, _TOP, where)
    devices = tuple(
        _device(each, f"{where}: devices[{number}]", folder)
        for number, each in enumerate(_list(table, "devices", where))
    )
    attackers = tuple(
        _attackers(each, f"{where}: attackers[{number}]", [device.name for device in devices])
        for number, each in enumerate(_list(table, "attackers", where))
    )
    if not devices and not attackers:
        raise InvalidSettingError(f"{where} expects [[devices]] or [[attackers]], and has neither.")
    _check_shares(devices, attackers, where)
    return FleetProfile(name, devices, attackers, _text(table, "summary", where))


def _device(table: Table, where: str, folder: Path) -> DeviceProfile:
    _check_keys(table, _DEVICE, where)
    like = _text(table, "like", where)
    base = _like(like, where) if like else None
    name = _text(table, "name", where) or like
    if not name:
        raise InvalidSettingError(f"{where} expects a name, or the name of a shipped profile that it is like.")
    where = f"{where} ({name})"
    lacking = [each for each in ("compute", "network") if each not in table and base is None]
    if lacking:
        raise InvalidSettingError(
            f"{where} expects a table {lacking[0]}.", hint='Or take a shipped profile\'s: like = "pi4".'
        )
    parts = {
        part: _settings(kind, _table(table, part, where), f"{where}: {part}", base and getattr(base, part))
        for part, kind in _TABLES.items()
    }
    availability = base.availability if base else Always()
    if "availability" in table:
        availability = _availability(_table(table, "availability", where), f"{where}: availability", folder)
    return DeviceProfile(
        name=name,
        share=_share(table, where) if "share" in table else 1.0,
        summary=_text(table, "summary", where) or (base.summary if base else ""),
        availability=availability,
        sources=_sources(table, where, base),
        **parts,
    )


def _like(name: str, where: str) -> DeviceProfile:
    if name not in SHIPPED:
        raise InvalidSettingError(
            f"{where}: like expects a shipped profile, {', '.join(SHIPPED)}, got {name!r:.80}.",
            hint=_nearest(name, SHIPPED),
        )
    (device,) = _shipped(name).devices
    return device


def _attackers(table: Table, where: str, names: list[str]) -> Attackers:
    rest = {key: value for key, value in table.items() if key not in ("kind", "share", "among")}
    kind = _kind(table, tuple(ATTACKS), where)
    among = _text(table, "among", where)
    if among and among not in names:
        raise InvalidSettingError(
            f"{where}: among expects one of the devices {', '.join(names) or '(there are none)'}, got {among!r:.80}.",
            hint=_nearest(among, names),
        )
    return Attackers(
        _settings(ATTACKS[kind], rest, where, None, ("kind", "share", "among")), _share(table, where), among
    )


def _availability(table: Table, where: str, folder: Path) -> Availability:
    rest = {key: value for key, value in table.items() if key != "kind"}
    kind = _kind(table, (*AVAILABILITIES, "trace"), where)
    if kind != "trace":
        rule: Availability = _settings(AVAILABILITIES[kind], rest, where, None, ("kind",))
        return rule
    _check_keys(rest, ("file",), where)
    file = _text(rest, "file", where)
    if not file:
        raise InvalidSettingError(f"{where} expects the file of the trace.", hint='file = "devices.csv"')
    return read_trace(folder / file)


def _settings(kind: type[T], table: Table, where: str, base: T | None, others: tuple[str, ...] = ()) -> T:
    """A dataclass of settings from a table.

    Args:
        kind: the dataclass.
        table: values by name.
        where: it stands.
        base: what is not given is as it is there; None: as the dataclass says.
        others: keys that stand beside the settings.

    Raises:
        InvalidSettingError: a key is not known, a value is missing, of another type, or outside its range.
    """
    known = {each.name: each for each in settings_of(kind)}
    _check_keys(table, (*others, *known), where)
    for name, value in table.items():
        wanted = known[name].kind
        if isinstance(value, bool) != (wanted is bool) or not isinstance(value, (bool, int, float)):
            raise InvalidSettingError(
                f"{where}: {name} expects {'true or false' if wanted is bool else 'a number'}, got {value!r:.80}."
            )
    values = {**(values_of(base) if base is not None else {}), **table}
    lacking = [name for name, each in known.items() if each.required and name not in values]
    if lacking:
        raise InvalidSettingError(f"{where} expects a value {lacking[0]}.", hint=known[lacking[0]].help)
    try:
        return kind(**{name: known[name].kind(value) for name, value in values.items()})
    except SettingError as error:
        raise error.naming(lambda name: f"{where}: {name}") from error


def _sources(table: Table, where: str, base: DeviceProfile | None) -> dict[str, str]:
    """The source of each number: those of the shipped profile for what is as it is there."""
    own, where = _table(table, "sources", where), f"{where}: sources"
    known = [f"{part}.{field.name}" for part, kind in _TABLES.items() for field in dataclasses.fields(kind)]
    _check_keys(own, (*known, "availability"), where)
    changed = {f"{part}.{name}" for part in _TABLES for name in table.get(part, ())} | {"availability"} & table.keys()
    kept = {name: text for name, text in (base.sources if base else {}).items() if name not in changed}
    return kept | {name: _text(own, name, where) for name in own}


def _check_shares(devices: tuple[DeviceProfile, ...], attackers: tuple[Attackers, ...], where: str) -> None:
    names = [each.name for each in devices]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidSettingError(f"{where}: two kinds of devices are called {twice!r:.80}.", hint="Give one a name.")
    total = sum(each.share for each in devices)
    if devices and abs(total - 1) > _SHARES_ADD_UP:
        raise InvalidSettingError(f"{where}: the shares of all devices expect to add up to 1, got {total:g}.")
    for among in ("", *names):
        attacking = sum(each.share for each in attackers if each.among in ("", among))
        if attacking > 1:
            raise InvalidSettingError(f"{where}: the shares of attackers expect at most 1 together, got {attacking:g}.")


def _share(table: Table, where: str) -> float:
    value = table.get("share")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise InvalidSettingError(f"{where}: share expects a number above 0 up to 1, got {value!r:.80}.")
    return float(value)


def _kind(table: Table, kinds: tuple[str, ...], where: str) -> str:
    kind = _text(table, "kind", where)
    if kind not in kinds:
        raise InvalidSettingError(
            f"{where}: kind expects one of {', '.join(kinds)}, got {kind!r:.80}.", hint=_nearest(kind, kinds)
        )
    return kind


def _text(table: Table, name: str, where: str) -> str:
    value = table.get(name, "")
    if not isinstance(value, str):
        raise InvalidSettingError(f"{where}: {name} expects a text, got {value!r:.80}.")
    return value


def _table(table: Table, name: str, where: str) -> Table:
    value = table.get(name, {})
    if not isinstance(value, Mapping):
        raise InvalidSettingError(f"{where}: {name} expects a table, got {value!r:.80}.")
    return value


def _list(table: Table, name: str, where: str) -> list[Table]:
    value = table.get(name, [])
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise InvalidSettingError(f"{where}: {name} expects a list of tables, [[{name}]], got {value!r:.80}.")
    return value


def _check_keys(table: Table, known: tuple[str, ...], where: str) -> None:
    for name in table:
        if name not in known:
            raise InvalidSettingError(
                f"{where}: {name!r:.80} is not known; expected {', '.join(known)}.", hint=_nearest(name, known)
            )


def _nearest(name: str, names: tuple[str, ...] | list[str]) -> str | None:
    near = difflib.get_close_matches(str(name).lower()[:80], names)
    return f"Did you mean {' or '.join(near)}?" if near else None
