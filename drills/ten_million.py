"""Ten million sessions: what a refresh costs does not depend on how many there are.

    .venv/bin/python drills/ten_million.py [--rounds SESSIONS] [--database sqlite|postgresql]

The table is filled as four weeks of sign-ins leave it: one session in twenty lives, the others are evidence, half of
them revoked, half ended by themselves; one in a thousand was Ada's. The statements that matter say how they find their
rows. Then the full database and an empty one beside it, each with one worker, are asked the same over HTTP in turns,
A B A B: a median is taken of each round, a ratio of the two medians, and the median of the ratios. At last old rows are
cleared away, as another instance would, while refreshes go on.

Ten million sessions take some seven gigabytes of disk on SQLite and four on PostgreSQL.
"""

import asyncio
import contextlib
import http.client
import itertools
import json
import re
import shutil
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import psycopg
import sqlalchemy as sa

# Started as a script: the project's folder makes `drills` and `tests.support` importable.
if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from drills.ground import Figure, main, percentile, serving
from latchstring.core.revocations.rules import RevocationReason
from latchstring.core.sessions import store
from latchstring.core.sessions.rules import Client, RefreshLimit, Rotation, Session
from latchstring.foundation import housekeeping
from latchstring.foundation.clock import SystemClock
from latchstring.foundation.database import Connection, Database
from tests.support.hang import HANG_SECONDS
from tests.support.postgres import Postgres
from tests.support.service import cheap_settings, credentials, running_service

BYTES_EACH = 1000
"""What a session may take on disk, with its indexes and what is written on the way."""
DAYS = 28
"""How far back the evidence goes: no server would clear any of it away by itself."""
SESSIONS_PER_USER = 100
LIVING_ONE_IN = 20
GENERATION = 3
"""That all of them are in."""
LEAST_HOT = 0.9
CHANNELS = 4
ROUNDS = 7
MOST_TIMES_SLOWER = 1.2
MOST_BATCH_MS = 100.0
MOST_TIMES_SLOWER_MEANWHILE = 2.0
CLEARING_SECONDS = 15.0
KEEP_ALIVE_SECONDS = 2.0
USER_AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:146.0) Gecko/20100101 Firefox/146.0"

Ask = Callable[[Connection], Awaitable[object]]


def drill(url: str, *, rounds: int) -> list[Figure]:
    """Show what is promised of a table of `rounds` sessions."""
    asked = max(2, min(60, rounds // 10_000))
    with _empty_database_beside(url, needed=rounds * BYTES_EACH) as empty_url:
        ada, _ = asyncio.run(_registered(url)), asyncio.run(_registered(empty_url))
        began = time.perf_counter()
        filled = fill(url, rounds, ada=ada)
        figures = [_line(f"{filled:,} sessions", f"filled in {time.perf_counter() - began:.0f} s", is_kept=True)]
        figures += asyncio.run(_ways(url, ada=ada))
        if not _is_sqlite(url):
            figures.append(asyncio.run(_hot_updates(url, times=max(200, asked * 20))))
        with _signed_in(url) as ours, _signed_in(empty_url) as theirs:
            figures.append(_side_by_side("a refresh", _Client.refresh, ours, theirs, times=asked))
            figures.append(
                _side_by_side("a sign-in of who has many ended ones", _Client.sign_in, ours, theirs, times=asked)
            )
            figures += _cleared_away_meanwhile(url, ours, times=asked * ROUNDS)
    return figures


def _line(promise: str, seen: str, *, is_kept: bool) -> Figure:
    return Figure(promise, seen.replace("|", "/"), is_kept)


# --- a full database, and an empty one --------------------------------------------------------------------------------


@contextlib.contextmanager
def _empty_database_beside(url: str, *, needed: int) -> Iterator[str]:
    """Give another database of the same kind at the same place.

    Raises:
        RuntimeError: the disk has no room for what is to come.
    """
    folder = Path(_file_of(url)).parent if _is_sqlite(url) else Path(tempfile.gettempdir())
    if shutil.disk_usage(folder).free < needed:
        raise RuntimeError(f"{folder} needs {needed / 2**30:.0f} GiB of free space")
    if _is_sqlite(url):
        with tempfile.TemporaryDirectory(dir=folder) as beside:
            yield f"sqlite:///{beside}/latchstring.db"
    else:
        with Postgres(url) as server:
            yield server.create_database()


def _is_sqlite(url: str) -> bool:
    return url.startswith("sqlite")


def _file_of(url: str) -> str:
    return url.partition(":///")[2]


async def _registered(url: str) -> UUID:
    """Make schema and keys, let Ada register, and return her id."""
    from latchstring.apps.server import prepare  # noqa: PLC0415 -- a script that prints its help needs no server

    settings = cheap_settings(url)
    await prepare(settings)
    async with running_service(settings) as service:
        browser = await service.registered(credentials()["email"])
        return UUID((await browser.get("/api/auth/me")).json()["id"])


_POSTGRESQL_FILL = """
    INSERT INTO latchstring_sessions (
        id, user_id, epoch, created_at, proven_at, methods, generation, rotated_at, expires_at, ends_at,
        generation_access_expires_at, access_expires_at, refreshes, refreshes_since, repeats, expires_by,
        revoked_at, revoked_reason, user_agent, address)
    SELECT
        (lpad(to_hex((extract(epoch FROM opened_at) * 1000)::bigint), 12, '0') || '7' || substr(md5(i::text), 1, 3)
            || '8' || substr(md5(i::text), 4, 15))::uuid,
        CASE WHEN is_adas THEN %(ada)s::uuid ELSE md5((i %% %(users)s)::text)::uuid END,
        0, opened_at, opened_at, '["pwd"]', 3, used_at, used_at + interval '60 min', opened_at + interval '30 days',
        used_at + interval '15 min', used_at + interval '15 min', 3, opened_at, 0,
        (CASE WHEN is_revoked THEN used_at ELSE used_at + interval '60 min' END AT TIME ZONE 'UTC')::date,
        CASE WHEN is_revoked THEN used_at + interval '9 min' END, CASE WHEN is_revoked THEN 'logout' END,
        %(agent)s, '192.0.2.1'
    FROM (
        SELECT i, opened_at, is_adas,
            i %% %(one_in)s <> 0 AND (i / 1000) %% 2 = 0 AS is_revoked,
            CASE WHEN i %% %(one_in)s = 0 THEN %(now)s ELSE opened_at + interval '30 min' END AS used_at
        FROM (
            SELECT i, i %% 1000 = 7 AS is_adas, %(first)s + i * %(step)s * interval '1 second' AS opened_at
            FROM generate_series(0::bigint, %(count)s - 1) AS i
        ) AS numbered
    ) AS session
"""
_SQLITE_FILL = """
    INSERT INTO latchstring_sessions (
        id, user_id, epoch, created_at, proven_at, methods, generation, rotated_at, expires_at, ends_at,
        generation_access_expires_at, access_expires_at, refreshes, refreshes_since, repeats, expires_by,
        revoked_at, revoked_reason, user_agent, address)
    WITH RECURSIVE numbers (i) AS (SELECT :begin UNION ALL SELECT i + 1 FROM numbers WHERE i + 1 < :end),
    numbered AS (
        SELECT i, i % 1000 = 7 AS is_adas, i % :one_in = 0 AS lives, (i / 1000) % 2 = 0 AS is_even,
            CAST(:first + i * :step AS INTEGER) AS opened_at
        FROM numbers
    ),
    session AS (
        SELECT i, is_adas, opened_at, is_even AND NOT lives AS is_revoked,
            CASE WHEN lives THEN :now ELSE opened_at + 1800 END AS used_at,
            strftime('%Y-%m-%d %H:%M:%S.000000', opened_at, 'unixepoch') AS opened_text
        FROM numbered
    )
    SELECT
        printf('%012x7%03x8%015x', opened_at * 1000, i % 4096, i),
        CASE WHEN is_adas THEN :ada
            ELSE printf('%08x00004000%016x', ((i % :users) * 2654435761) & 4294967295, i % :users) END,
        0, opened_text, opened_text, '["pwd"]', 3,
        strftime('%Y-%m-%d %H:%M:%S.000000', used_at, 'unixepoch'),
        strftime('%Y-%m-%d %H:%M:%S.000000', used_at + 3600, 'unixepoch'),
        strftime('%Y-%m-%d %H:%M:%S.000000', opened_at + 30 * 86400, 'unixepoch'),
        strftime('%Y-%m-%d %H:%M:%S.000000', used_at + 900, 'unixepoch'),
        strftime('%Y-%m-%d %H:%M:%S.000000', used_at + 900, 'unixepoch'),
        3, opened_text, 0,
        date(CASE WHEN is_revoked THEN used_at ELSE used_at + 3600 END, 'unixepoch'),
        CASE WHEN is_revoked THEN strftime('%Y-%m-%d %H:%M:%S.000000', used_at + 540, 'unixepoch') END,
        CASE WHEN is_revoked THEN 'logout' END, :agent, '192.0.2.1'
    FROM session
"""
_ROWS_AT_A_TIME = 500_000


def fill(url: str, count: int, *, ada: UUID) -> int:
    """Write `count` sessions, oldest first; PostgreSQL is told to look at them (SQLite never is, by any server)."""
    now = datetime.now(UTC).replace(microsecond=0)
    # The last of those that ended did so an hour ago.
    first = now - timedelta(days=DAYS)
    step = (timedelta(days=DAYS) - timedelta(hours=2)).total_seconds() / count
    given = {"users": max(1, count // SESSIONS_PER_USER), "one_in": LIVING_ONE_IN, "agent": USER_AGENT, "step": step}
    if _is_sqlite(url):
        with contextlib.closing(sqlite3.connect(_file_of(url), isolation_level=None)) as file:
            for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-200000"):
                file.execute(f"PRAGMA {pragma}").close()
            given |= {"ada": ada.hex, "first": int(first.timestamp()), "now": int(now.timestamp())}
            for begin in range(0, count, _ROWS_AT_A_TIME):
                file.execute(_SQLITE_FILL, given | {"begin": begin, "end": min(count, begin + _ROWS_AT_A_TIME)})
        return count
    with psycopg.connect(url, autocommit=True) as connection:
        given |= {"ada": ada, "first": first, "now": now, "count": count}
        connection.execute(_POSTGRESQL_FILL, given)
        # What autovacuum would do a minute later, in the middle of what is measured.
        connection.execute("VACUUM (ANALYZE) latchstring_sessions")
        connection.execute("CHECKPOINT")
    return count


# --- how a statement finds its rows -----------------------------------------------------------------------------------


async def ways(database: Database, ask: Ask) -> list[str]:
    """Return how what `ask` executes finds its rows, as the database explains it; what it does is undone."""
    executed: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            executed.append((statement, parameters))

    async with database.engine.connect() as connection:
        sa.event.listen(database.engine.sync_engine, "before_cursor_execute", note)
        try:
            await ask(connection)
        finally:
            sa.event.remove(database.engine.sync_engine, "before_cursor_execute", note)
        await connection.rollback()
        found: list[str] = []
        for statement, parameters in executed:
            prefix = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN (FORMAT JSON)"
            rows = (await connection.exec_driver_sql(f"{prefix} {statement}", parameters)).all()
            found += _sqlite_scans(rows) if database.is_sqlite else _postgresql_scans(rows[0][0][0]["Plan"])
        await connection.rollback()
    return found


_VALUE = re.compile(r"'[^']*'(::[a-z0-9 ]+)?")


def _sqlite_scans(rows: Sequence[Any]) -> list[str]:
    return [row.detail for row in rows if row.detail.startswith(("SCAN", "SEARCH"))]


def _postgresql_scans(node: dict[str, Any]) -> list[str]:
    below = [line for child in node.get("Plans", []) for line in _postgresql_scans(child)]
    if "Index Name" in node:
        condition = _VALUE.sub("?", node.get("Index Cond", ""))
        return [f"{node['Node Type']} using {node['Index Name']} {condition}".rstrip(), *below]
    return [f"{node['Node Type']} on {node['Relation Name']}", *below] if node["Node Type"] == "Seq Scan" else below


def _rotate(
    connection: Connection, session_id: UUID, owner: UUID, *, presented: int = GENERATION
) -> Awaitable[Session | None]:
    now = datetime.now(UTC)
    rotation = Rotation(
        session_id=session_id,
        user_id=owner,
        now=now,
        access_expiry=now + timedelta(minutes=15),
        refresh_expiry=now + timedelta(minutes=60),
        client=Client.of(address="203.0.113.7", user_agent="Mozilla/5.0"),
    )
    limit = RefreshLimit(times=60, window=timedelta(minutes=1))
    return store.rotate(connection, rotation, presented=presented, limit=limit)


@dataclass(frozen=True)
class Asked:
    """A statement that matters, and what its plan must say on SQLite or on PostgreSQL."""

    name: str
    ask: Ask
    by: re.Pattern[str]

    def is_found(self, found: Sequence[str]) -> bool:
        """Tell whether the rows are found as they should be, and no table is read from end to end."""
        return any(self.by.search(way) for way in found) and not any(_reads_all(way) for way in found)


def asked_of(*, owner: UUID, session_id: UUID, now: datetime) -> list[Asked]:
    """Return the statements that matter."""
    one = r"(using|USING INDEX) (pk_latchstring_sessions|sqlite_autoindex_latchstring_sessions_1) \(+id ?= ?\?"
    # PostgreSQL may take the smaller of the two indexes that know the id: it leads to one row as well.
    one_living = rf"{one}|using ix_latchstring_sessions_living \(\(user_id = \?\) AND \(id = \?\)\)"
    living = r"(using|USING INDEX) ix_latchstring_sessions_living \(+user_id ?= ?\?"
    by_day = r"(using|USING INDEX) ix_latchstring_sessions_expires_by \(+expires_by ?< ?\?"
    epoch = r"(using|USING INDEX|USING COVERING INDEX) ix_latchstring_revocations_epoch"
    before, most, too_many = now.date() - timedelta(days=DAYS), housekeeping.BATCH_SIZE, RevocationReason.TOO_MANY
    asked: list[tuple[str, Ask, str]] = [
        ("a refresh finds its session by its id", lambda on: _rotate(on, session_id, owner), one_living),
        ("a refresh asks an index for the epoch", lambda on: _rotate(on, session_id, owner), epoch),
        (
            "the list of a user's sessions is found by the index of the living",
            lambda on: store.list_sessions(on, owner, now=now),
            living,
        ),
        (
            "a user's oldest sessions are found by the index of the living",
            lambda on: store.end_oldest_sessions(on, owner, most=100, now=now, reason=too_many),
            living,
        ),
        (
            "what is old is found by its day",
            lambda on: store.prune_sessions(on, before=before, most=most),
            by_day,
        ),
    ]
    return [Asked(name, ask, re.compile(by)) for name, ask, by in asked]


async def _ways(url: str, *, ada: UUID) -> list[Figure]:
    database = Database(url)
    figures = []
    try:
        for asked in asked_of(owner=ada, session_id=ada, now=datetime.now(UTC)):
            found = await ways(database, asked.ask)
            figures.append(_line(asked.name, "; ".join(found), is_kept=asked.is_found(found)))
    finally:
        await database.close()
    return figures


async def _hot_updates(url: str, *, times: int) -> Figure:
    """Refresh sessions from all over the table, once each and once more; count the updates that wrote no index."""
    database = Database(url)
    shares: list[float] = []
    try:
        async with database.reading() as connection:
            chosen = (await connection.execute(_SOME_LIVING, {"times": times, "generation": GENERATION})).all()
        for presented in (GENERATION, GENERATION + 1):
            before = await _updates(database)
            for session_id, owner in chosen:
                async with database.transaction() as connection:
                    assert await _rotate(connection, session_id, owner, presented=presented), "it was no living session"
            updates, hot = (after - earlier for after, earlier in zip(await _updates(database), before, strict=True))
            assert updates == times, "the statistics are late"
            shares.append(hot / updates)
    finally:
        await database.close()
    return _line(
        f"{LEAST_HOT:.0%} of refreshes write no index (HOT)",
        f"{shares[0]:.1%} of the first ones of {times} sessions, {shares[1]:.1%} of the second ones",
        is_kept=min(shares) >= LEAST_HOT,
    )


_SOME_LIVING = sa.text(
    "SELECT id, user_id FROM latchstring_sessions WHERE revoked_at IS NULL AND expires_at > now() "
    "AND generation = :generation ORDER BY random() LIMIT :times"
)
_UPDATES = sa.text("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'latchstring_sessions'")


async def _updates(database: Database) -> tuple[int, int]:
    # Asked one after the other, all of it goes over one connection, which tells here what it has counted.
    async with database.reading() as connection:
        await connection.execute(sa.select(sa.func.pg_stat_force_next_flush()))
        updates, hot = (await connection.execute(_UPDATES)).one()
        return int(updates), int(hot)


def _reads_all(way: str) -> bool:
    # SQLite says SCAN of what a subquery has left, too.
    return way.startswith(("Seq Scan on", "SCAN latchstring_"))


# --- latency ----------------------------------------------------------------------------------------------------------


class _Client:
    """A browser, as thin as can be, signed in."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection
        self._cookies: dict[str, str] = {}
        self._asked_at = time.monotonic()
        self.sign_in()

    def sign_in(self) -> None:
        """Create a session; without the cookies of the one before, which would be ended by it."""
        self._cookies.clear()
        self._post("/api/auth/login", json.dumps(credentials()).encode())

    def refresh(self) -> None:
        """Rotate it."""
        before = dict(self._cookies)
        self._post("/api/auth/refresh", b"")
        assert self._cookies["refresh_token"] != before["refresh_token"], "nothing rotated"

    def _post(self, path: str, body: bytes) -> None:
        if time.monotonic() - self._asked_at > KEEP_ALIVE_SECONDS:
            self._connection.close()  # the server hangs up after five seconds: the next request connects anew
        self._asked_at = time.monotonic()
        headers = {"Content-Type": "application/json"} if body else {}
        if self._cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        self._connection.request("POST", path, body, headers)
        answer = self._connection.getresponse()
        content = answer.read()
        assert answer.status == http.HTTPStatus.OK, content
        for cookie in answer.headers.get_all("set-cookie", []):
            name, _, value = cookie.partition(";")[0].partition("=")
            self._cookies[name] = value


@contextlib.contextmanager
def _signed_in(url: str) -> Iterator[list[_Client]]:
    """Run one worker on a database, and give what is signed in there."""
    with serving(url, workers=1) as server, contextlib.ExitStack() as stack:
        host = server.url.removeprefix("http://")
        connections = [http.client.HTTPConnection(host, timeout=HANG_SECONDS) for _ in range(CHANNELS)]
        yield [_Client(stack.enter_context(contextlib.closing(connection))) for connection in connections]


def _milliseconds(ask: Callable[[_Client], None], clients: Sequence[_Client], *, times: int) -> list[float]:
    taken = []
    for turn in range(times):
        began = time.perf_counter()
        ask(clients[turn % len(clients)])
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def _side_by_side(
    name: str, ask: Callable[[_Client], None], ours: Sequence[_Client], theirs: Sequence[_Client], *, times: int
) -> Figure:
    for clients in (ours, theirs):
        _milliseconds(ask, clients, times=len(clients))
    medians: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        full, empty = (statistics.median(_milliseconds(ask, clients, times=times)) for clients in (ours, theirs))
        medians.append((full, empty))
    ratios = [full / empty for full, empty in medians]
    full, empty = (statistics.median(side) for side in zip(*medians, strict=True))
    ratio = statistics.median(ratios)
    return _line(
        f"{name} takes at most {MOST_TIMES_SLOWER} of what it takes on an empty table",
        f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}); {full:.1f} ms, {empty:.1f} ms",
        is_kept=ratio <= MOST_TIMES_SLOWER,
    )


# --- clearing away ----------------------------------------------------------------------------------------------------


def _cleared_away_meanwhile(url: str, clients: Sequence[_Client], *, times: int) -> list[Figure]:
    before = datetime.now(UTC).date() - timedelta(days=DAYS // 2)
    kept_before = _count(url, since=before)
    rested = _milliseconds(_Client.refresh, clients, times=times)
    cleaner = _Cleaner(url, before=before)
    with cleaner:
        busy: list[float] = []
        began = time.perf_counter()
        while not busy or (cleaner.is_at_it and time.perf_counter() - began < CLEARING_SECONDS):
            busy += _milliseconds(_Client.refresh, clients, times=1)
    batches = cleaner.batch_milliseconds
    tenth = max(1, len(batches) // 10)
    first, last = statistics.median(batches[:tenth]), statistics.median(batches[-tenth:])
    batch = statistics.median(batches)
    ratio = statistics.median(busy) / statistics.median(rested)
    return [
        _line(
            f"a batch of {housekeeping.BATCH_SIZE} is cleared away in {MOST_BATCH_MS:.0f} ms",
            f"{batch:.1f} ms (p99 {percentile(batches, 0.99):.1f} ms); "
            f"{cleaner.cleared:,} rows in {len(batches)} batches, first ones {first:.1f} ms, last ones {last:.1f} ms",
            is_kept=batch <= MOST_BATCH_MS,
        ),
        _line(
            f"a refresh meanwhile takes at most {MOST_TIMES_SLOWER_MEANWHILE} of what it does at rest",
            f"{ratio:.2f}; {statistics.median(busy):.1f} ms (p99 {percentile(busy, 0.99):.1f} ms), "
            f"at rest {statistics.median(rested):.1f} ms (p99 {percentile(rested, 0.99):.1f} ms)",
            is_kept=ratio <= MOST_TIMES_SLOWER_MEANWHILE,
        ),
        _line(
            "only what is old is cleared away",
            f"{cleaner.cleared:,} rows; of {kept_before:,} newer ones {_count(url, since=before):,} are left",
            is_kept=cleaner.cleared > 0 and _count(url, since=before) == kept_before,
        ),
    ]


def _count(url: str, *, since: date) -> int:
    """Count sessions that have ended since that day, those that may still be renewed left out."""
    statement = sa.text(
        "SELECT count(*) FROM latchstring_sessions WHERE expires_by >= :since AND expires_by < :yesterday"
    ).bindparams(since=since, yesterday=datetime.now(UTC).date() - timedelta(days=1))

    async def count() -> int:
        database = Database(url)
        try:
            async with database.engine.connect() as connection:
                return int((await connection.execute(statement)).scalar_one())
        finally:
            await database.close()

    return asyncio.run(count())


class _Cleaner:
    """Another instance's housekeeping, in a thread of its own, until the block ends."""

    def __init__(self, url: str, *, before: date) -> None:
        self._url = url
        self._before = before
        self._is_enough = False
        self._batches_began: list[float] = []
        self.cleared = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._clear_away()))

    @property
    def is_at_it(self) -> bool:
        """Whether there is still something to clear away."""
        return self._thread.is_alive()

    @property
    def batch_milliseconds(self) -> list[float]:
        """What each batch took, its commit included and the pause after it left out."""
        pause = housekeeping._PAUSE_SECONDS  # noqa: SLF001 -- what is measured is the rest
        return [(after - this - pause) * 1000 for this, after in itertools.pairwise(self._batches_began)]

    async def _clear_away(self) -> None:
        database = Database(self._url)
        try:
            self.cleared = await housekeeping.Housekeeping(database, SystemClock(), [self._prune]).clean_up()
        finally:
            await database.close()

    async def _prune(self, connection: Connection, *, now: datetime, most: int) -> int:  # noqa: ARG002
        self._batches_began.append(time.perf_counter())
        if self._is_enough:
            return 0
        return await store.prune_sessions(connection, before=self._before, most=most)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_enough = True
        self._thread.join()


if __name__ == "__main__":
    sys.exit(main(drill, rounds=10_000_000))
