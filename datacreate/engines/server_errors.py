"""Why a server did not answer: the exceptions, and what an HTTP status or a failed connection means."""

from __future__ import annotations

import os
from typing import Any

from datacreate.engines.server_sources import API_KEY_VARIABLE

TEMPORARY = (429, 502, 503, 504)  # HTTP statuses of a server that is busy, still loading, or behind a proxy


class ServerProblem(Exception):
    """A server did not do what it was asked to do; the message says why."""

    hung = False  # it sent nothing at all


class Unavailable(ServerProblem):
    """A server did not answer a request; the same or another one may answer it later.

    `request_may_be_cause`: every server may fail at this request.
    """

    def __init__(self, reason: str, *, request_may_be_cause: bool = True, hung: bool = False) -> None:
        super().__init__(reason)
        self.request_may_be_cause = request_may_be_cause
        self.hung = hung


class RequestRejected(Unavailable):
    """A server refuses a request as invalid (HTTP 4xx). If it refuses all requests, the server is at fault."""


class Busy(Unavailable):
    """A server has too many requests (HTTP 429)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, request_may_be_cause=False)


class Incompatible(ServerProblem):
    """A server cannot be used as it is: another model, no schemas, a wrong key. The message says what to do."""


def wrong_address(path: str, response: str) -> Incompatible:
    """The error for an address where no server with this API is."""
    return Incompatible(f"no OpenAI-compatible server at this address ({path} returns {response}); check --url")


def connection_error(error: Exception) -> ServerProblem:
    """The error for a connection that failed, with a short reason, such as `Connection refused`."""
    cause: BaseException = error
    while inner := cause.__cause__ or cause.__context__:
        cause = inner
    if "CERTIFICATE" in str(cause).upper():
        return Incompatible("its TLS certificate is not trusted; set SSL_CERT_FILE to the file of its CA")
    number = cause.errno if isinstance(cause, OSError) else None
    reason = os.strerror(number) if number and number > 0 else short_text(cause, 80) or type(error).__name__
    return Unavailable(f"cannot be reached ({reason})", request_may_be_cause=False)


def status_error(status: int, document: Any) -> ServerProblem:
    """The exception for an HTTP status other than 200."""
    text = f"HTTP {status}: {short_text(document)}"
    if 300 <= status < 400:
        return Incompatible(f"it redirects to another address (HTTP {status}); use that address with --url")
    if status in (401, 403):
        return Incompatible(f"access denied (HTTP {status}); set ${API_KEY_VARIABLE} to the server's key")
    if status == 429:
        return Busy(f"{text}; with a smaller --max-num-seqs it gets fewer requests at once")
    if status in (404, *TEMPORARY):
        return Unavailable(text, request_may_be_cause=False)
    if 400 <= status < 500 and status != 408:
        return RequestRejected(text)
    return Unavailable(text)


def short_text(document: Any, max_chars: int = 160) -> str:
    """The error message in a response as one line of at most `max_chars` characters."""
    if isinstance(document, dict):
        error = document.get("error", document)
        document = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(document)[: 4 * max_chars].split())[:max_chars]
