"""What a request costs, counted: SQL statements, commits, and signatures made and verified.

statements   what the engine sends, without the BEGIN and COMMIT around them
commits      transactions that wrote
made         signatures of the tokens in the response
verified     signatures of the tokens in the request; a worker remembers an access token that it has verified

The table is that of version 0.1.0. Each number is a bound: a change that needs less lowers it here.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from joserfc.jws import JWSRegistry

from latchstring import Settings
from latchstring.core.keys.settings import Algorithm
from latchstring.testing import ManualClock
from tests.support.service import PASSWORD, Service, credentials, quiet_service, registration


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one request may cost at most."""

    statements: int
    commits: int
    made: int
    verified: int


COSTS = {
    "register": Cost(statements=9, commits=2, made=2, verified=0),
    "sign-in": Cost(statements=8, commits=2, made=2, verified=0),
    "refresh": Cost(statements=2, commits=1, made=2, verified=1),
    "repeated refresh": Cost(statements=4, commits=1, made=2, verified=1),
    "confirm": Cost(statements=8, commits=2, made=2, verified=1),
    "protected route, new token": Cost(statements=0, commits=0, made=0, verified=1),
    "protected route": Cost(statements=0, commits=0, made=0, verified=0),
    "protected route, user read": Cost(statements=1, commits=0, made=0, verified=0),
    "sign-out": Cost(statements=3, commits=1, made=0, verified=1),
}
LOCKS_A_LIMIT = {"register", "sign-in", "confirm"}
"""One statement more on PostgreSQL; on SQLite, whoever writes is alone already."""


@dataclass
class Meter:
    """What has been counted since it was last cleared."""

    statements: list[str] = field(default_factory=list)
    commits: int = 0
    made: int = 0
    verified: int = 0

    def clear(self) -> None:
        """Begins again at nothing."""
        self.statements.clear()
        self.commits = self.made = self.verified = 0

    def watch_database(self, engine: sa.Engine) -> None:
        """Counts what an engine is asked, on whichever connection."""

        def asked(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            if not statement.startswith("BEGIN"):  # SQLite's, which SQLAlchemy leaves to us
                self.statements.append(statement)

        def committed(_connection: object) -> None:
            self.commits += 1

        sa.event.listen(engine, "before_cursor_execute", asked)
        sa.event.listen(engine, "commit", committed)

    def watch_signatures(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Counts what the library signs and verifies, and lets it."""
        library = JWSRegistry.algorithms[Algorithm.EDDSA]
        sign, verify = library.sign, library.verify

        def signs(octets: bytes, key: Any) -> bytes:  # noqa: ANN401 -- joserfc's own
            self.made += 1
            return sign(octets, key)

        def verifies(octets: bytes, signature: bytes, key: Any) -> bool:  # noqa: ANN401 -- as above
            self.verified += 1
            return verify(octets, signature, key)

        monkeypatch.setattr(library, "sign", signs)
        monkeypatch.setattr(library, "verify", verifies)


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Meter:
    meter = Meter()
    meter.watch_signatures(monkeypatch)
    return meter


@pytest.fixture(params=[False, True], ids=["", "metrics"])
async def service(
    request: pytest.FixtureRequest, settings: Settings, clock: ManualClock, meter: Meter
) -> AsyncIterator[Service]:
    """One worker with limits, as shipped; and one with metrics, which cost nothing of what is counted here."""
    changes = {"limits": True, "metrics": request.param}
    async with quiet_service(settings.model_copy(update=changes), clock) as service:
        meter.watch_database(service.auth.parts.tools.database.engine.sync_engine)
        await service.registered("grace@example.com")  # the first connections of a process ask questions of their own
        yield service


Request = Callable[[], Awaitable[httpx2.Response]]


async def register(service: Service) -> Request:
    return lambda: service.browser().post("/api/auth/register", json=registration())


async def sign_in(service: Service) -> Request:
    await service.registered()
    return lambda: service.browser().post("/api/auth/login", json=credentials())


async def refresh(service: Service) -> Request:
    ada = await service.registered()
    return lambda: ada.post("/api/auth/refresh")


async def repeated_refresh(service: Service) -> Request:
    ada = await service.registered()
    tokens = dict(ada.cookies)
    await ada.post("/api/auth/refresh")
    tab = service.browser()
    tab.cookies.update(tokens)
    return lambda: tab.post("/api/auth/refresh")


async def confirm(service: Service) -> Request:
    ada = await service.registered()
    await ada.get("/api/dashboard")
    return lambda: ada.post("/api/auth/confirm", json={"password": PASSWORD})


async def protected_new_token(service: Service) -> Request:
    ada = await service.registered()
    return lambda: ada.get("/api/dashboard")


async def protected(service: Service) -> Request:
    ada = await service.registered()
    await ada.get("/api/dashboard")
    return lambda: ada.get("/api/dashboard")


async def user_read(service: Service) -> Request:
    ada = await service.registered()
    await ada.get("/api/dashboard")
    return lambda: ada.get("/api/auth/me")


async def sign_out(service: Service) -> Request:
    ada = await service.registered()
    await ada.get("/api/dashboard")
    return lambda: ada.post("/api/auth/logout")


PREPARE = {
    "register": register,
    "sign-in": sign_in,
    "refresh": refresh,
    "repeated refresh": repeated_refresh,
    "confirm": confirm,
    "protected route, new token": protected_new_token,
    "protected route": protected,
    "protected route, user read": user_read,
    "sign-out": sign_out,
}


async def measured(name: str, service: Service, meter: Meter) -> Cost:
    """Returns what one request cost, with all that it set going."""
    request = await PREPARE[name](service)
    await service.auth.drained()
    meter.clear()
    answer = await request()
    await service.auth.drained()
    assert answer.is_success, answer.text
    return Cost(statements=len(meter.statements), commits=meter.commits, made=meter.made, verified=meter.verified)


@pytest.mark.parametrize("name", COSTS)
async def test_a_request_costs_no_more_than_before(name: str, service: Service, meter: Meter, backend: str) -> None:
    """What it asks the database, what it commits, and what it signs and verifies."""
    at_most, locks = COSTS[name], int(backend == "postgresql" and name in LOCKS_A_LIMIT)
    seen = await measured(name, service, meter)
    asked = "\n".join([f"{name} on {backend}: {seen}", *(" ".join(each.split()) for each in meter.statements)])
    assert seen.statements <= at_most.statements + locks, asked
    assert seen.commits <= at_most.commits, asked
    assert seen.made <= at_most.made, asked
    assert seen.verified <= at_most.verified, asked


async def test_the_meter_sees(service: Service, meter: Meter) -> None:
    """A meter that sees nothing keeps every bound: a rotation writes, verifies one token and signs two."""
    seen = await measured("refresh", service, meter)
    assert seen.statements >= 1
    assert (seen.commits, seen.made, seen.verified) == (1, 2, 1)
