"""The codec of a run: whether it goes with the rest of its settings, what it writes, and which one suits a model."""

from __future__ import annotations

from edgefl.codecs import CODECS, codec, codec_names, codec_spellings, encoded_bytes, is_codec
from edgefl.wire.vocabulary import Correction
from edgefl_server.aggregation.hyperparameters import SettingError

__all__ = [
    "AUTO",
    "WHOLE",
    "check_by_acceptance",
    "check_codec",
    "check_down_codec",
    "check_name",
    "choice_text",
    "chosen_codec",
    "codec_choices",
    "section_codec",
]

AUTO = "auto"
"""The codec of a run that is to be chosen by the size of its model."""
WHOLE = "float32"
"""The codec of the way down with which devices fetch whole weights, and no differences."""
_BY_SIZE = ((4096, "float32"), (65_536, "eden-3"))
"""Up to so many weights; a larger model has the last resort."""
_LARGE = "rand-0.25+drive"
_ROBUST = "eden-4"
_WITHOUT_MEMORY = f"Use a codec without a memory: drive, or {_LARGE}."


def codec_choices() -> tuple[str, ...]:
    """All that a run's codec may be, for people."""
    return (AUTO, *codec_spellings())


def check_name(name: str) -> None:
    """Whether there is such a codec.

    Raises:
        SettingError: there is none; the hint is the nearest.
    """
    if name != AUTO and not is_codec(name):
        raise SettingError(
            f"{{codec}} expects one of {', '.join(codec_choices())}, got {name!r:.80}.",
            hint=CODECS.nearest(name) or f"A fraction is written like 0.25: {_LARGE}.",
        )


def check_codec(
    name: str, strategy: str, sections: tuple[str, ...], correction: Correction, clip_norm: float, *, robust: bool
) -> None:
    """Whether a codec goes with a strategy, its rule and clipping.

    Args:
        name: the codec's.
        strategy: the strategy's name.
        sections: that its devices send.
        correction: what they add to the gradient.
        clip_norm: to which devices clip; 0: they do not.
        robust: the rule by which updates are merged is no mean.

    Raises:
        SettingError: it does not.
    """
    if name == AUTO:
        return
    chosen = codec(name)
    if not any(map(chosen.suits, sections)):
        raise SettingError(
            f"{{codec}} {name} is for {', '.join(chosen.sections)}, and devices of {{strategy}} {strategy} send "
            f"{', '.join(sections)}.",
            hint=f"Use another codec: drive, or {_LARGE}.",
        )
    if robust and chosen.sparse:
        raise SettingError(
            f"{{codec}} {name} does not go with a robust {{rule}}: of each update most elements come out as 0, "
            "others for each device, so that what lies in the middle is 0 nearly everywhere.",
            hint=f"Use {_ROBUST} or int8, or {{rule}} mean.",
        )
    if not chosen.memory:
        return
    remembers = f"a device adds to each update what {name} left out of the one before"
    if correction is not Correction.NONE:
        raise SettingError(
            f"{{codec}} {name} does not go with {{strategy}} {strategy}: {remembers}, of which "
            "the strategy's own memory knows nothing.",
            hint=_WITHOUT_MEMORY,
        )
    if clip_norm:
        raise SettingError(
            f"{{codec}} {name} does not go with {{clip_norm}}: {remembers}, so that what was clipped would come back.",
            hint="Leave {clip_norm} out, or use a codec without a memory.",
        )


def check_down_codec(name: str) -> None:
    """Whether the weights can be told by differences in a codec.

    Raises:
        SettingError: they cannot; the hint is what can.
    """
    if not is_codec(name) or not codec(name).contractive:
        fitting = [each for each in codec_names() if codec(each).contractive]
        why = "" if not is_codec(name) else ": what it leaves out would grow from round to round"
        raise SettingError(
            f"{{down_codec}} expects one of {', '.join(fitting)} or stc-FRACTION, got {name!r:.80}{why}.",
            hint="drive is 32 times shorter.",
        )


def check_by_acceptance(name: str, schedule: str) -> None:
    """Whether a codec goes with a schedule that merges updates as they come, whatever they started from.

    Raises:
        SettingError: it does not.
    """
    if name != AUTO and codec(name).memory:
        raise SettingError(
            f"{{codec}} {name} does not go with {{schedule}} {schedule}: a device adds to each update what {name} left "
            "out of the one before, which was meant for older weights and would count as if it were not.",
            hint=_WITHOUT_MEMORY,
        )


def section_codec(name: str, section: str) -> str:
    """The codec of a section of an outcome: the run's, or float32 where that one does not suit it."""
    return name if codec(name).suits(section) else "float32"


def choice_text(name: str, weights: int) -> str:
    """Says which codec was chosen for a model, and what that saves.

    Args:
        name: the codec's.
        weights: elements of the layout's weight section.
    """
    return (
        f"Codec {name}: a device sends {weights:,} weights in {encoded_bytes(name, weights):,} bytes, which are "
        f"{4 * weights:,} as float32."
    )


def chosen_codec(weights: int, *, robust: bool = False) -> str:
    """The codec that suits a model: see docs/codecs.md for what the bounds rest on.

    Args:
        weights: elements of the layout's weight section.
        robust: the rule by which updates are merged is no mean, and sees the errors of single devices.
    """
    chosen = next((name for most, name in _BY_SIZE if weights <= most), _LARGE)
    return chosen if codec(chosen).exact or not robust else _ROBUST
