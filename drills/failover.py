"""The primary server is killed and its standby promoted, under load, again and again: nothing acknowledged is lost.

    .venv/bin/python drills/failover.py [--rounds N]

Two PostgreSQL servers of the drill's own, with synchronous replication, and two instances of two workers, one for each
driver, whose URL names both. People register, sign in, and every other one signs out, as fast as they can; others look
at the dashboard. In each round every process of the primary is killed, the standby is promoted at once, and a new
standby takes the place of the dead server. What was acknowledged is looked for in the tables and shown to the workers.
"""

import asyncio
import contextlib
import secrets
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # makes `drills` and `tests.support` importable

import httpx2
import jwt
import sqlalchemy as sa

from drills.ground import Figure, Says, bearer, main, percentile, serving
from latchstring.core.accounts.tables import users
from latchstring.core.sessions.tables import sessions
from latchstring.foundation.database import Database
from tests.support.hang import HANG_SECONDS, sleep_until, until
from tests.support.postgres import OwnPostgres
from tests.support.process import NO_TLS, ServerProcess
from tests.support.service import credentials, registration

DRIVERS = ("psycopg", "asyncpg")
PEOPLE = 4
"""So many at each instance; half as many look at the dashboard."""
BOUND_SECONDS = 5.0
PAUSE_SECONDS = 0.05
SHOWN = 100
"""So many tokens are shown after a round, the last ones."""


@dataclass(kw_only=True)
class Pair:
    """A primary and the standby that it waits for."""

    primary: OwnPostgres
    standby: OwnPostgres

    def url(self, database: str, driver: str) -> str:
        """Return the URL of a database on whichever of the two takes writes, in libpq's form."""
        before, _, after = database.replace("postgresql:", f"postgresql+{driver}:").partition("@")
        both = ",".join(f"127.0.0.1:{port}" for port in sorted((self.primary.port, self.standby.port)))
        return f"{before}@{both}/{after.partition('/')[2]}?target_session_attrs=read-write"

    def synchronize(self) -> None:
        """Acknowledge from now on only what the standby has written, too."""
        self.primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.primary.execute("SELECT pg_reload_conf()")
        sleep_until(lambda: ("sync",) in self.primary.execute("SELECT sync_state FROM pg_stat_replication"))

    def fail_over(self) -> float:
        """Kill the primary, promote the standby; return the moment of the kill."""
        killed = time.monotonic()
        self.primary.kill()
        self.standby.promote()
        return killed

    def replace(self) -> None:
        """Put a new standby in the place of the dead primary."""
        port = self.primary.port
        self.primary.close()
        self.primary = self.standby
        self.standby = self.primary.standby(port=port)
        self.synchronize()


@contextlib.contextmanager
def _pair() -> Iterator[Pair]:
    primary = OwnPostgres(synchronous_commit="on")
    pair = Pair(primary=primary, standby=primary.standby())
    try:
        pair.synchronize()
        yield pair
    finally:
        pair.standby.close()
        pair.primary.close()


@dataclass(kw_only=True)
class Seen:
    """What was acknowledged, and everything else that was heard."""

    registered: list[str] = field(default_factory=list)
    signed_in: list[str] = field(default_factory=list)
    """Access tokens of sign-ins and registrations …"""
    unsure: set[str] = field(default_factory=set)
    """… of which a sign-out was asked for, and not acknowledged."""
    signed_out: list[str] = field(default_factory=list)
    served: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """For each person: when they asked for something that was acknowledged, and when it was."""
    statuses: Counter[int] = field(default_factory=Counter)
    looks: Counter[int] = field(default_factory=Counter)
    let_in: int = 0
    shown: int = 0
    lost: list[str] = field(default_factory=list)


def drill(url: str, *, rounds: int, workers: int = 2, load_seconds: float = 2) -> list[Figure]:  # noqa: ARG001 -- it needs two servers of its own
    """Return what was lost in so many promotions."""
    seen, kills = Seen(), []
    with _pair() as pair, contextlib.ExitStack() as stack:
        database = pair.primary.create_database()
        urls = [pair.url(database, driver) for driver in DRIVERS]
        servers = [stack.enter_context(serving(each, workers=workers)) for each in urls]
        kills = asyncio.run(_live_through(servers, pair, seen, rounds=rounds, load_seconds=load_seconds))
        asyncio.run(_look_for_everything(urls[0], seen))
        tracebacks = sum(server.words().count("Traceback") for server in servers)
    return _figures(seen, kills, tracebacks=tracebacks)


# --- the load ---------------------------------------------------------------------------------------------------------


async def _live_through(
    servers: Sequence[ServerProcess], pair: Pair, seen: Seen, *, rounds: int, load_seconds: float
) -> list[float]:
    kills: list[float] = []
    for _ in range(rounds):
        async with _load(servers, seen):
            await asyncio.sleep(load_seconds)
            kills.append(await asyncio.to_thread(pair.fail_over))
            # The slowest may need all of its time. A hang ends this, and is an endless wait in the table.
            with contextlib.suppress(TimeoutError):
                await until(lambda: all(_waited(times, kills[-1]) for times in seen.served.values()))
            await asyncio.to_thread(pair.replace)
        # Every worker has polled since.
        await asyncio.sleep(1)
        await asyncio.gather(*(_show(server, seen) for server in servers))
    return kills


@contextlib.asynccontextmanager
async def _load(servers: Sequence[ServerProcess], seen: Seen) -> AsyncIterator[None]:
    ending = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for server in servers:
            for number in range(PEOPLE):
                group.create_task(_come_and_go(server, seen, name=f"{server.url} {number}", ending=ending))
            for _ in range(PEOPLE // 2):
                group.create_task(_look(server, seen, ending=ending))
        yield
        ending.set()


async def _come_and_go(server: ServerProcess, seen: Seen, *, name: str, ending: asyncio.Event) -> None:
    served = seen.served.setdefault(name, [])
    async with _client(server) as client:
        while not ending.is_set():
            asked, email = time.monotonic(), f"{secrets.token_hex(8)}@example.com"
            registered = await _ask(client, seen, "/api/auth/register", json=registration(email))
            if registered is None:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            seen.registered.append(email)
            seen.signed_in.append(registered.cookies["access_token"])
            served.append((asked, time.monotonic()))
            client.cookies.clear()
            signed_in = await _ask(client, seen, "/api/auth/login", json=credentials(email))
            if signed_in is None:
                continue
            token = signed_in.cookies["access_token"]
            seen.signed_in.append(token)
            if len(served) % 2:
                seen.unsure.add(token)
                if await _ask(client, seen, "/api/auth/logout") is not None:
                    seen.signed_out.append(token)
            client.cookies.clear()


async def _look(server: ServerProcess, seen: Seen, *, ending: asyncio.Event) -> None:
    async with _client(server) as client:
        body = registration(f"{secrets.token_hex(8)}@example.com")
        await _ask(client, seen, "/api/auth/register", json=body)
        while not ending.is_set():
            seen.looks[(await client.get("/api/dashboard")).status_code] += 1
            await asyncio.sleep(PAUSE_SECONDS)


async def _ask(client: httpx2.AsyncClient, seen: Seen, path: str, *, json: object = None) -> httpx2.Response | None:
    """Return the response if it acknowledges something."""
    response = await client.post(path, json=json)
    seen.statuses[response.status_code] += 1
    return response if response.is_success else None


def _client(server: ServerProcess) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=server.url, timeout=HANG_SECONDS, verify=NO_TLS)


# --- afterwards -------------------------------------------------------------------------------------------------------


async def _show(server: ServerProcess, seen: Seen) -> None:
    """Show the last tokens that were signed out."""
    async with _client(server) as client:
        for token in seen.signed_out[-SHOWN:]:
            status = (await client.get("/api/dashboard", headers=bearer(token))).status_code
            seen.shown += 1
            seen.let_in += status != 401


async def _look_for_everything(url: str, seen: Seen) -> None:
    database = Database(url)
    async with database.reading() as connection:
        emails = set(await connection.scalars(sa.select(users.c.email)))
        rows = (await connection.execute(sa.select(sessions.c.id, sessions.c.revoked_at))).all()
    await database.close()
    ended = {row.id: row.revoked_at is not None for row in rows}
    seen.lost += [f"registration of {email}" for email in seen.registered if email not in emails]
    for token in seen.signed_in:
        session = UUID(jwt.decode(token, options={"verify_signature": False})["sid"])
        if session not in ended or (ended[session] and token not in seen.unsure):
            seen.lost.append(f"sign-in {session}")
    for token in seen.signed_out:
        session = UUID(jwt.decode(token, options={"verify_signature": False})["sid"])
        if not ended.get(session):
            seen.lost.append(f"sign-out {session}")


def _waited(times: Sequence[tuple[float, float]], killed: float) -> float | None:
    """Return how long after a kill somebody got the first acknowledgement that they asked for since."""
    return next((at - killed for asked, at in times if asked > killed), None)


def _figures(seen: Seen, kills: Sequence[float], *, tracebacks: int) -> list[Figure]:
    for what in seen.lost:
        print(what, file=sys.stderr)
    waits = [_waited(times, killed) or float("inf") for killed in kills for times in seen.served.values()]
    others = sorted(set(seen.statuses) - {200, 201, 503})
    return [
        Figure(
            f"{len(kills)} promotions: nothing that was acknowledged is lost",
            f"{len(seen.registered)} registrations, {len(seen.signed_in)} sessions, {len(seen.signed_out)} sign-outs; "
            f"{len(seen.lost)} lost",
            is_kept=bool(seen.registered and seen.signed_out) and not seen.lost,
        ),
        Figure(
            "what was revoked stays revoked, on both instances",
            f"{seen.shown} times shown, {seen.let_in} let in",
            is_kept=seen.shown > 0 and seen.let_in == 0,
        ),
        Figure(
            f"everybody is served again within {BOUND_SECONDS:.0f} s of the kill",
            f"{max(waits):.2f} s at most, median {percentile(waits, 0.5):.2f} s",
            is_kept=max(waits) <= BOUND_SECONDS,
            says=Says.SPEED if max(waits) < HANG_SECONDS else Says.PROMISE,
        ),
        Figure(
            "meanwhile what needs the database is a 503, and nobody is signed out",
            f"{seen.statuses[503]} × 503, others {others or 'none'}; the dashboard: {dict(sorted(seen.looks.items()))}",
            is_kept=not others and seen.looks.keys() <= {200, 503} and seen.looks[200] > 0,
        ),
        Figure("the log has sentences, no stack traces", f"{tracebacks} stack traces", is_kept=tracebacks == 0),
    ]


if __name__ == "__main__":
    sys.exit(main(drill, rounds=10, databases=("postgresql",)))
