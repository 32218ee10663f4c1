"""A hundred thousand revocations, and a transaction left open elsewhere: guards respond as quickly as ever.

    .venv/bin/python drills/feed.py [--rounds N]

PostgreSQL alone, two clusters of the drill's own; a round is a sign-out, and twenty requests for the dashboard to each
of two workers beside it. It is done four times: with nothing in the feed; with 100,000 entries, while another database
of the cluster has a writing transaction open; the same after a dump was restored into a cluster whose transaction ids
are lower; and with an application's own engine, all of whose connections its own handlers hold.
"""

import asyncio
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # makes `drills` and `tests.support` importable

import psycopg

from drills import host_pool
from drills.ground import Figure, Says, main, percentile, serving
from drills.lines import Line, line_to_each_worker
from tests.support.postgres import OwnPostgres
from tests.support.process import ServerProcess
from tests.support.service import registration

WORKERS = 2
ENTRIES = 100_000
ASKED = 20
"""Requests to each worker beside a sign-out."""
BOUND_SECONDS = 1.0
GIVE_UP_SECONDS = 30.0
TIMES_NORMAL = 2.0
HELD_SECONDS = 12.0

_FILL = """
    INSERT INTO latchstring_revocations (transaction_id, kind, session_id, reason, created_at, expires_at)
    SELECT pg_current_xact_id(), 'session', gen_random_uuid(), 'logout', %(now)s, %(until)s
    FROM generate_series(1, %(entries)s)
"""
_USE_UP_IDS = "DO $$ BEGIN FOR i IN 1..50000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"


@dataclass(kw_only=True)
class Heard:
    """What was measured in one of the situations."""

    situation: str
    seconds: list[float] = field(default_factory=list)
    """How long each guarded request took."""
    codes: list[str] = field(default_factory=list)
    """The code of each that was refused."""
    delays: list[float] = field(default_factory=list)
    """How long after its end a session was let in by the other worker."""

    @property
    def p99(self) -> float:
        return percentile(self.seconds, 0.99)


def drill(url: str, *, rounds: int, entries: int = ENTRIES, held_seconds: float = HELD_SECONDS) -> list[Figure]:  # noqa: ARG001 -- clusters of its own
    """Return what guards said and how soon, with so many entries and so many sign-outs in each situation."""
    with OwnPostgres() as first, OwnPostgres() as second:
        before = first.create_database()
        with psycopg.connect(first.url, autocommit=True) as connection:
            connection.execute(_USE_UP_IDS)
        with serving(before, workers=WORKERS) as server:
            normal = asyncio.run(_ask(server, "nothing in the feed", rounds=rounds))
        with psycopg.connect(first.create_database()) as elsewhere:
            elsewhere.execute("SELECT pg_current_xact_id()")
            _fill(before, entries=entries)
            with serving(before, workers=WORKERS) as server:
                open_elsewhere = asyncio.run(_ask(server, "a transaction open elsewhere", rounds=rounds))
        after = second.create_database()
        _move(before, after, first, second)
        with serving(after, workers=WORKERS) as server:
            restored = asyncio.run(_ask(server, "restored into another cluster", rounds=rounds))
        held = host_pool.drill(first.create_database(), seconds=held_seconds)
    figures = [_as_quick(heard, normal, entries=entries) for heard in (open_elsewhere, restored)]
    return [*figures, _known_soon([normal, open_elsewhere, restored]), *held]


def _fill(url: str, *, entries: int) -> None:
    now = datetime.now(UTC)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_FILL, {"now": now, "until": now + timedelta(hours=1), "entries": entries})


def _move(before: str, after: str, first: OwnPostgres, second: OwnPostgres) -> None:
    dump = first.data_directory.parent / "dump.sql"
    first.run("pg_dump", "--no-owner", "--file", str(dump), "--dbname", before)
    text = dump.read_text()
    there = second.data_directory.parent / "dump.sql"
    second.own(there)
    there.write_text(text)
    second.run("psql", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", after, "--file", str(there))


async def _ask(server: ServerProcess, situation: str, *, rounds: int) -> Heard:
    heard = Heard(situation=situation)
    async with line_to_each_worker(server, workers=WORKERS) as lines:
        witness = await _access_token(lines[0])
        for turn in range(rounds):
            here, there = lines[turn % WORKERS], lines[(turn + 1) % WORKERS]
            token = await _access_token(here)
            await asyncio.gather(
                _sign_out(here, there, token, heard), *(_guards(line, witness, heard) for line in lines)
            )
    return heard


async def _access_token(line: Line) -> str:
    answer = await line.ask("POST", "/api/auth/register", json=registration(f"{secrets.token_hex(8)}@example.com"))
    assert answer.status_code == 201, answer.text
    return answer.cookies["access_token"]


async def _guards(line: Line, token: str, heard: Heard) -> None:
    for _ in range(ASKED):
        began = time.perf_counter()
        answer = await line.ask("GET", "/api/dashboard", token=token)
        heard.seconds.append(time.perf_counter() - began)
        if answer.status_code != 200:
            heard.codes.append(answer.json()["code"])


async def _sign_out(here: Line, there: Line, token: str, heard: Heard) -> None:
    assert (await here.ask("POST", "/api/auth/logout", token=token)).status_code == 200
    began = time.perf_counter()
    while (await there.ask("GET", "/api/dashboard", token=token)).status_code == 200:
        if time.perf_counter() - began > GIVE_UP_SECONDS:
            break
        await asyncio.sleep(0.01)
    heard.delays.append(time.perf_counter() - began)


def _as_quick(heard: Heard, normal: Heard, *, entries: int) -> Figure:
    times = heard.p99 / normal.p99
    return Figure(
        f"{heard.situation}, {entries:,} entries: every guard lets in, and takes at most {TIMES_NORMAL:.0f} × as long",
        f"{len(heard.codes)} of {len(heard.seconds)} refused; p99 {heard.p99 * 1000:.1f} ms, {times:.2f} × "
        f"the {normal.p99 * 1000:.1f} ms with nothing in the feed",
        is_kept=not heard.codes and times <= TIMES_NORMAL,
        says=Says.PROMISE if heard.codes else Says.SPEED,
    )


def _known_soon(situations: Sequence[Heard]) -> Figure:
    slowest: Callable[[Heard], float] = lambda heard: max(heard.delays)  # noqa: E731 -- named for the line below
    said = ", ".join(f"{heard.situation} {slowest(heard):.3f} s" for heard in situations)
    return Figure(
        "in each, a sign-out is known to the other worker within 1 s",
        f"at most, of {len(situations[0].delays)} each: {said}",
        is_kept=all(slowest(heard) <= BOUND_SECONDS for heard in situations),
        says=Says.SPEED,
    )


if __name__ == "__main__":
    sys.exit(main(drill, rounds=50, databases=("postgresql",)))
