"""The certificates by which a device knows its server: those of its invitation, and those that the server announces."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgefl.certificates import Pins, pins_from_header, pins_of
from edgefl.credentials import check_pin, check_public_key_pin
from edgefl.errors import InvalidSettingError

__all__ = ["Trust"]

_SOURCE, _HINT = "the device's settings", "The operator's invitation holds it."


class Trust:
    """Accepts certificates that fit one of several pairs of pins, whoever signed them.

    Args:
        pairs: of pins; of each pair, those that are there have to fit. None of them: who signed a certificate decides.
        learnt: told when the server has announced others.

    Attributes:
        pairs: what is accepted.

    Raises:
        InvalidSettingError: a pin is none.
    """

    def __init__(self, pairs: Sequence[Pins] = (), learnt: Callable[[list[Pins]], None] = lambda pairs: None) -> None:
        self.pairs: list[Pins] = [_checked(pair) for pair in pairs if pair != (None, None)]
        self._learnt = learnt
        self._shown: tuple[str, str] | None = None

    @property
    def is_pinned(self) -> bool:
        """Whether there are any pins."""
        return bool(self.pairs)

    def accepts(self, certificate: bytes) -> bool:
        """Whether a certificate in DER, to which the server has shown that it holds the key, is one of these."""
        try:
            shown = pins_of(certificate)
        except InvalidSettingError:
            return False
        fits = any(_fits(pair, shown) for pair in self.pairs)
        if fits:
            self._shown = shown
        return fits

    def learn(self, header: str) -> None:
        """Takes what the server announces in the place of what was accepted before.

        Nothing is learnt without pins, nor what leaves out the certificate that the server itself shows now: whoever
        announces that would be lost to this device.

        Args:
            header: of an answer that came through a connection with a certificate that is accepted.
        """
        announced = pins_from_header(header)
        if not self.is_pinned or self._shown not in announced:
            return
        # A device that was given the key's pin only goes on with keys' pins, and so on.
        kinds = [any(pair[kind] is not None for pair in self.pairs) for kind in (0, 1)]
        pairs: list[Pins] = [(own if kinds[0] else None, key if kinds[1] else None) for own, key in announced]
        if pairs != self.pairs:
            self.pairs = pairs
            self._learnt(pairs)


def _fits(pair: Pins, shown: Pins) -> bool:
    return all(pin is None or pin == found for pin, found in zip(pair, shown, strict=True))


def _checked(pair: Pins) -> Pins:
    own, key = pair
    return (
        None if own is None else check_pin(own, _SOURCE, hint=_HINT),
        None if key is None else check_public_key_pin(key, _SOURCE, hint=_HINT),
    )
