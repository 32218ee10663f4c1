"""What a fault of the database says: in the log, at `/readyz`, and in the metrics.

    .venv/bin/python drills/faults.py

One worker on PostgreSQL, on which four faults are brought about, one after the other, while people sign in: it is
read-only, its disk is full (the error is PostgreSQL's own, raised by a trigger), a lock that somebody holds fills the
pool, and it is stopped. Then SQLite, whose file another process keeps locked.
"""

import asyncio
import contextlib
import json
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # makes `drills` and `tests.support` importable

import httpx2
import psycopg

from drills.ground import Figure, empty_database, main, serving
from tests.support.hang import HANG_SECONDS
from tests.support.postgres import OwnPostgres, free_port
from tests.support.process import ServerProcess
from tests.support.service import credentials, registration

AT_ONCE = 12
"""More sign-ins than the pool has connections."""
EMAIL = "ada@example.com"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault, and what is promised of it."""

    name: str
    begun: Callable[[], AbstractContextManager[None]]
    causes: frozenset[str]
    """One of these is in the log, and counted."""
    readiness: tuple[int, str]
    """What `/readyz` says: its status, and the `status` in it."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was said while a fault lasted."""

    lines: Sequence[tuple[str, str]]
    """Event and cause of each line of the log."""
    readiness: tuple[int, str]
    counted: frozenset[str]
    refused: int
    is_restored: bool
    """Whether the log says that it is over."""


def drill(url: str, *, rounds: int) -> list[Figure]:
    """Return what each fault said, with so many sign-ins meanwhile."""
    figures: list[Figure] = []
    with OwnPostgres() as postgres:
        url = postgres.create_database()
        with _served(url) as (server, metrics):
            faults = _faults_of(postgres, url)
            figures += [_figure(fault, _live_through(server, metrics, fault, rounds=rounds)) for fault in faults]
    with empty_database("sqlite") as url, _served(url) as (server, metrics):
        fault = Fault(
            name="a SQLite file that another process locks",
            begun=lambda: _locked_file(url.removeprefix("sqlite:///")),
            causes=frozenset({"locked", "timed_out"}),
            readiness=(200, "degraded"),
        )
        figures.append(_figure(fault, _live_through(server, metrics, fault, rounds=rounds)))
    return figures


@contextlib.contextmanager
def _served(url: str) -> Iterator[tuple[ServerProcess, str]]:
    port = free_port()
    with serving(url, workers=1, variables={"LATCHSTRING_METRICS_PORT": str(port)}) as server:
        with server.client() as client:
            assert client.post("/api/auth/register", json=registration(EMAIL)).status_code == 201
        yield server, f"http://127.0.0.1:{port}/metrics"


def _faults_of(postgres: OwnPostgres, url: str) -> list[Fault]:
    return [
        Fault(
            name="a read-only PostgreSQL",
            begun=lambda: _read_only(postgres, url),
            causes=frozenset({"read_only"}),
            readiness=(200, "degraded"),
        ),
        Fault(
            name="a PostgreSQL whose disk is full",
            begun=lambda: _full_disk(url),
            causes=frozenset({"disk_full"}),
            readiness=(200, "degraded"),
        ),
        Fault(
            name="a lock that fills the pool",
            begun=lambda: _locked_table(url),
            causes=frozenset({"pool_empty", "no_connection"}),
            readiness=(503, "unavailable"),
        ),
        Fault(
            name="a PostgreSQL that is stopped",
            begun=lambda: _stopped(postgres),
            causes=frozenset({"unreachable"}),
            readiness=(503, "unavailable"),
        ),
    ]


@contextlib.contextmanager
def _read_only(postgres: OwnPostgres, url: str) -> Iterator[None]:
    name = url.rpartition("/")[2]
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        for setting in ("on", "off"):
            connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {setting}".encode())
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            if setting == "on":
                yield


@contextlib.contextmanager
def _full_disk(url: str) -> Iterator[None]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            """CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$"""
        )
        for table in ("sessions", "limits"):
            connection.execute(
                f"CREATE TRIGGER full_disk BEFORE INSERT ON latchstring_{table} EXECUTE FUNCTION full_disk()".encode()
            )
        yield
        connection.execute("DROP FUNCTION full_disk() CASCADE")


@contextlib.contextmanager
def _locked_table(url: str) -> Iterator[None]:
    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE latchstring_users IN ACCESS EXCLUSIVE MODE")
        yield


@contextlib.contextmanager
def _stopped(postgres: OwnPostgres) -> Iterator[None]:
    postgres.stop()
    yield
    postgres.start()


@contextlib.contextmanager
def _locked_file(path: str) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


def _live_through(server: ServerProcess, metrics: str, fault: Fault, *, rounds: int) -> Seen:
    before, counted_before = len(server.words()), _counted(metrics)
    with fault.begun():
        statuses, readiness = asyncio.run(_sign_in_meanwhile(server, rounds=rounds))
    said = server.words()[before:]
    counted = {kind for kind, number in _counted(metrics).items() if number > counted_before.get(kind, 0)}
    return Seen(
        lines=[line for line in _lines(said) if not line[0].endswith("_restored")],
        readiness=readiness,
        counted=frozenset(counted),
        refused=sum(status == 503 for status in statuses),
        is_restored=_is_restored(server, since=before),
    )


async def _sign_in_meanwhile(server: ServerProcess, *, rounds: int) -> tuple[list[int], tuple[int, str]]:
    async with httpx2.AsyncClient(base_url=server.url, timeout=HANG_SECONDS) as client:

        async def sign_in() -> int:
            return (await client.post("/api/auth/login", json=credentials(EMAIL))).status_code

        statuses: list[int] = []
        readiness: list[tuple[int, str]] = []
        for _ in range(rounds):
            waiting = [asyncio.create_task(sign_in()) for _ in range(AT_ONCE)]
            # Asked while they wait, and not after: a pool is empty for as long.
            await asyncio.sleep(0.5)
            answer = await client.get("/readyz")
            readiness.append((answer.status_code, answer.json()["status"]))
            statuses += await asyncio.gather(*waiting)
    # The last: the first may have been asked before anything had failed.
    return statuses, readiness[-1]


def _is_restored(server: ServerProcess, *, since: int) -> bool:
    """Sign in until the log says that it is over: five seconds after the last failure."""
    deadline = time.monotonic() + HANG_SECONDS
    with server.client() as client:
        while time.monotonic() < deadline:
            client.post("/api/auth/login", json=credentials(EMAIL))
            client.get("/readyz")
            lines = _lines(server.words()[since:])
            begun = {event.removesuffix("_failing") for event, _ in lines if event.endswith("_failing")}
            ended = {event.removesuffix("_restored") for event, _ in lines if event.endswith("_restored")}
            if begun <= ended:
                return True
            time.sleep(0.2)
    return False


def _lines(words: str) -> list[tuple[str, str]]:
    found = [json.loads(line) for line in words.splitlines() if line.startswith("{")]
    return [(line["event"], line.get("cause", "")) for line in found if str(line.get("event")).startswith("database.")]


def _counted(metrics: str) -> dict[str, float]:
    text = httpx2.get(metrics, timeout=HANG_SECONDS).text
    return {kind: float(number) for kind, number in re.findall(r'database_errors_total\{kind="(\w+)"\} (\S+)', text)}


def _figure(fault: Fault, seen: Seen) -> Figure:
    lines = ", ".join(f"{event} ({cause})" for event, cause in seen.lines)
    causes = {cause for _, cause in seen.lines}
    return Figure(
        f"{fault.name}: one line for each cause, and one for its end; it is counted, and `/readyz` is "
        f"{fault.readiness[0]} {fault.readiness[1]}",
        f"{seen.refused} × 503; log: {lines}; `/readyz` {seen.readiness[0]} {seen.readiness[1]}; "
        f"counted: {', '.join(sorted(seen.counted))}; its end {'was' if seen.is_restored else 'was not'} logged",
        is_kept=bool(causes & fault.causes)
        and len(set(seen.lines)) == len(seen.lines)
        and seen.readiness == fault.readiness
        and bool(seen.counted & fault.causes)
        and seen.refused > 0
        and seen.is_restored,
    )


if __name__ == "__main__":
    sys.exit(main(drill, rounds=3, databases=("postgresql",)))
