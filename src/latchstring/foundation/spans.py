"""Spans of OpenTelemetry, through its API only: sign-in, hash, transaction, refresh and poll.

The API does nothing until the application or its operator sets up an SDK. Without the API, `span` does nothing, and
nothing is imported. A span has a name and an outcome, both from this package: no query string, user, email, IP address
or token. An exception is named by its type: its message may hold what was sent.
"""

import contextlib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from opentelemetry import trace

Name = Literal[
    "latchstring.sign_in",
    "latchstring.hash",
    "latchstring.transaction",
    "latchstring.refresh",
    "latchstring.poll",
]
"""Every span. docs/metrics.md lists them."""


class Span:
    """A span that has begun."""

    def __init__(self, current: "trace.Span | None") -> None:
        self._current = current

    def end_with(self, outcome: str) -> None:
        """Say how it ended: with a word of ours, never with a value of the request."""
        if self._current is not None:
            self._current.set_attribute("latchstring.outcome", outcome)

    def fail(self, error: BaseException) -> None:
        """Say that it ended with an exception, by its type alone."""
        if self._current is not None:
            from opentelemetry.trace import StatusCode  # noqa: PLC0415 -- optional; there is a span, so it is imported

            self._current.set_attribute("error.type", type(error).__qualname__)
            self._current.set_status(StatusCode.ERROR)


_NO_SPAN = Span(None)


@contextlib.contextmanager
def span(name: Name) -> Iterator[Span]:
    """Run the block in a span, which is the parent of the spans that begin in it."""
    tracer = _tracer()
    if tracer is None:
        yield _NO_SPAN
        return
    # Both off: OpenTelemetry would store the exception's message and traceback, and SQLAlchemy's have parameters.
    with tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False) as current:
        begun = Span(current)
        try:
            yield begun
        except BaseException as error:
            begun.fail(error)
            raise


def _tracer() -> "trace.Tracer | None":
    api = _api()
    if api is None:
        return None
    provider = api.get_tracer_provider()
    # No SDK: a span that goes nowhere would cost each transaction several times what this question does.
    return None if isinstance(provider, api.ProxyTracerProvider) else _tracer_of(provider)


@cache
def _api() -> ModuleType | None:
    try:
        from opentelemetry import trace  # noqa: PLC0415 -- optional
    except ImportError:
        return None
    return trace


@cache
def _tracer_of(provider: "trace.TracerProvider") -> "trace.Tracer":
    return provider.get_tracer("latchstring", version("latchstring"))
