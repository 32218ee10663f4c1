"""Spans: their names, and that nothing of a request is in them."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.util.types import AttributeValue

from latchstring import Settings
from latchstring.foundation.spans import span
from latchstring.testing import ManualClock
from tests.support.backends import ON_SQLITE
from tests.support.hang import HANG_SECONDS
from tests.support.process import FORKED
from tests.support.service import PASSWORD, credentials, quiet_service, registration

HOSTILE = "hostile-value-4711"


@dataclass
class Kept:
    """What a span was given."""

    name: str
    parent: str | None
    attributes: dict[str, AttributeValue] = field(default_factory=dict)
    other: list[str] = field(default_factory=list)


class Recorded(trace.NonRecordingSpan):
    """A span that keeps whatever it is given."""

    def __init__(self, name: str, kept: list[Kept]) -> None:
        super().__init__(trace.INVALID_SPAN_CONTEXT)
        parent = trace.get_current_span()
        self.name = name
        self._kept = Kept(name, getattr(parent, "name", None))
        kept.append(self._kept)

    def is_recording(self) -> bool:
        return True

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        self._kept.attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        self._kept.attributes.update(attributes)

    def add_event(self, *arguments: object, **named: object) -> None:
        self._kept.other.append(repr((arguments, named)))

    def set_status(self, status: object, description: str | None = None) -> None:
        self._kept.other.append(repr((status, description)))

    def record_exception(self, exception: BaseException, *arguments: object, **named: object) -> None:
        self._kept.other.append(repr((exception, arguments, named)))


class Tracer(trace.NoOpTracer):
    """Makes spans that are kept."""

    def __init__(self, kept: list[Kept]) -> None:
        self._kept = kept

    def start_span(self, name: str, context: Context | None = None, **_: Any) -> trace.Span:  # type: ignore[override]  # noqa: ANN401 -- the API's many options
        return Recorded(name, self._kept)

    @contextmanager
    def start_as_current_span(self, name: str, *_: Any, **options: Any) -> Iterator[trace.Span]:  # type: ignore[override]  # noqa: ANN401 -- as above
        with trace.use_span(
            self.start_span(name),
            record_exception=options.get("record_exception", True),
            set_status_on_exception=options.get("set_status_on_exception", True),
        ) as current:
            yield current


class Provider(trace.TracerProvider):
    """An SDK, as far as we need one."""

    def __init__(self) -> None:
        self.kept: list[Kept] = []

    def get_tracer(self, *_: object, **__: object) -> trace.Tracer:
        return Tracer(self.kept)


def lived(settings: Settings, kept: Path) -> None:
    """Signs in, refreshes, polls and fails, with a hostile value wherever a client can put one."""
    provider = Provider()
    trace.set_tracer_provider(provider)

    async def live() -> None:
        async with quiet_service(settings, ManualClock()) as service:
            browser = service.browser(headers={"User-Agent": HOSTILE, "X-Request-ID": HOSTILE, "Cookie": HOSTILE})
            email = f"{HOSTILE}@example.com"
            await browser.post(f"/api/auth/register?next={HOSTILE}", json=registration(email, first_name=HOSTILE))
            await browser.post(f"/api/auth/login?token={HOSTILE}", json=credentials(email))
            await browser.post("/api/auth/login", json=credentials(email, HOSTILE))
            ada = await service.registered()
            await ada.post("/api/auth/refresh")
            await service.browser().post("/api/auth/refresh", headers={"Authorization": f"Bearer {HOSTILE}"})
            async with service.auth.parts.core.feed.polling():
                pass
            with suppress(ValueError), span("latchstring.hash"):
                raise ValueError(HOSTILE)

    asyncio.run(live())
    kept.write_text(json.dumps([asdict(each) for each in provider.kept]))


@ON_SQLITE
def test_a_span_holds_its_outcome_and_nothing_that_was_sent(settings: Settings, tmp_path: Path) -> None:
    """No query string, user, email, address, token, header or exception's message, in any attribute or event."""
    # In a process of its own: there is one provider in a process, and FastAPI uses it as well.
    process = FORKED.Process(target=lived, args=(settings, tmp_path / "spans.json"))
    process.start()
    process.join(HANG_SECONDS)
    assert process.exitcode == 0
    text = (tmp_path / "spans.json").read_text()
    spans = json.loads(text)
    assert HOSTILE not in text
    assert PASSWORD not in text
    assert {each["name"] for each in spans} == {
        "latchstring.sign_in",
        "latchstring.hash",
        "latchstring.transaction",
        "latchstring.refresh",
        "latchstring.poll",
    }
    assert {name for each in spans for name in each["attributes"]} == {"latchstring.outcome", "error.type"}
    outcomes = {(each["name"], each["attributes"].get("latchstring.outcome")) for each in spans}
    assert {
        ("latchstring.sign_in", "succeeded"),
        ("latchstring.sign_in", "wrong_credentials"),
        ("latchstring.refresh", "succeeded"),
        ("latchstring.refresh", "invalid"),
    } <= outcomes
    parents = {(each["name"], each["parent"]) for each in spans}
    assert ("latchstring.hash", "latchstring.sign_in") in parents
    assert ("latchstring.transaction", "latchstring.refresh") in parents
    failed = spans[-1]
    assert failed["attributes"] == {"error.type": "ValueError"}
    assert len(failed["other"]) == 1, "a status, and no exception"


def test_every_span_is_documented() -> None:
    """docs/metrics.md has a row for each."""
    from typing import get_args  # noqa: PLC0415 -- only here

    from latchstring.foundation.spans import Name  # noqa: PLC0415 -- as above
    from tests.support.folders import ROOT  # noqa: PLC0415 -- as above

    document = (ROOT / "docs" / "metrics.md").read_text()
    assert [name for name in get_args(Name) if f"| `{name}` |" not in document] == []


def test_without_the_api_nothing_is_imported() -> None:
    """And nothing fails: the block runs, and a failure goes on as it was."""
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from latchstring.foundation.spans import span\n"
        "with span('latchstring.hash') as current: current.end_with('succeeded')\n"
        "try:\n"
        "    with span('latchstring.hash'): raise KeyError\n"
        "except KeyError: print(sorted(n for n in sys.modules if n.startswith('opentelemetry')))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "['opentelemetry']"
