"""Says why a server did not answer its operator, and what to do about it."""

from __future__ import annotations

import http.client

from urllib3.exceptions import SSLError

from edgefl.errors import AuthenticationError, EdgeflError, ServerUnavailableError

__all__ = ["unreachable"]

_PIN = "Set EDGEFL_CERTIFICATE_PIN to the certificate_pin in operator.json of the server's state folder"
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE")
"""The words of OpenSSL, depending on its version, for a first answer that is no TLS."""


def unreachable(url: str, error: Exception, *, pinned: bool) -> EdgeflError:
    """Words what an operator is told whose request got no answer.

    Args:
        url: of the server.
        error: what urllib3 raised.
        pinned: whether one certificate was expected, instead of any that an authority vouches for.

    Returns:
        An `AuthenticationError` when the certificate is another one, else a `ServerUnavailableError`.
    """
    cause = _innermost(error)
    if isinstance(error, SSLError):
        if "Fingerprints did not match" in str(error):
            return AuthenticationError(
                f"{url} shows another certificate than the pin says: {error}.",
                hint=f"{_PIN}. If that is the same, somebody else answers for the server.",
            )
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            what = "another certificate" if pinned else "a certificate that nobody vouches for here"
            return AuthenticationError(
                f"{url} shows {what}: {getattr(cause, 'verify_message', '') or cause}.",
                hint=f"{_PIN}: then this very certificate is accepted, whoever signed it.",
            )
        if any(word in str(error) for word in _NO_TLS):
            return ServerUnavailableError(
                f"What answers at {url} does not speak TLS.",
                hint=f"Perhaps it speaks plain HTTP: try http://{url.removeprefix('https://')}.",
            )
    if url.startswith("http://") and isinstance(cause, (http.client.BadStatusLine, ConnectionResetError)):
        # So a server of edgefl's behind TLS does; one that ends in the middle of a request, too.
        return ServerUnavailableError(
            f"What listens at {url} ended the connection without an answer.",
            hint=f"Perhaps it speaks TLS: try https://{url.removeprefix('http://')}.",
        )
    reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return ServerUnavailableError(
        f"No answer from {url}: {reason}.", hint="Is the server running? `edgefl server start` starts it."
    )


def _innermost(error: BaseException) -> BaseException:
    """Finds the error that the library has wrapped: as the cause, or among the arguments."""
    seen = {id(error)}
    while True:
        inner = error.__cause__ or next((each for each in error.args if isinstance(each, BaseException)), None)
        if inner is None or id(inner) in seen:
            return error
        seen.add(id(inner))
        error = inner
