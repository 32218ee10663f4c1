"""The promises, each measured beside what it is compared with: A B A B, and the median of the rounds' ratios.

One worker, connections kept alive, the server on one core and the load on another where the system allows it.
"""

import asyncio
import base64
import contextlib
import json
import os
import re
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import argon2
from joserfc import jws
from joserfc.jwk import RSAKey

from benchmarks.library import ROUNDS as LIBRARY_ROUNDS
from benchmarks.library import hosts, import_seconds, import_seconds_alone, microseconds, plain, signed_in
from benchmarks.load import Load, Script, converse, cookie_follower, hammer, request
from benchmarks.pages import milliseconds_of_pages, milliseconds_to_first_paint
from benchmarks.servers import ALL_CORES, SERVE, SERVER_CORE, TWO_CORES, Server, on_cores, uvicorn
from benchmarks.sight import ROUNDS as SIGHT_ROUNDS
from benchmarks.sight import Sight
from latchstring.core.keys.settings import Algorithm
from latchstring.core.revocations.feed import PAGE_SIZE, POLL_INTERVAL_SECONDS, RELOAD_INTERVAL_SECONDS
from latchstring.core.revocations.rules import Revocation, RevocationKind, RevocationReason
from latchstring.core.revocations.store import insert_revocations
from latchstring.foundation.clock import new_id
from latchstring.foundation.database import Database
from tests.support.process import CHEAP_HASH
from tests.support.service import SECRET, credentials, registration

ROUNDS = 5
CONNECTIONS = 16
FEW_CONNECTIONS = 4
WARM_UP_SECONDS = 1
HASHING_NICENESS = 15
LOGIN_BODY = json.dumps(credentials()).encode()
REGISTRATION_BODY = json.dumps(registration()).encode()
# As many sessions as a busy worker sees, and more than it may remember tokens.
DISTINCT_TOKENS = 6000
REQUESTS_IT_STAYS_FLAT_OVER = 100_000
IDLE_SECONDS = 10
FEW_REVOKED, MANY_REVOKED = 10, 100_000
REVOKED_AT_A_TIME = 5000
# Sign-ins are of many users: one who signs in hundreds of times has as many sessions as the limit allows, and each
# sign-in more would end the oldest.
USERS, USERS_WITH_REAL_HASH = 200, 20
# The limits count, as they do by default, and nobody reaches them.
HIGH_LIMITS = {
    "LATCHSTRING_LIMIT_ACCOUNT": "100000000/15m",
    "LATCHSTRING_LIMIT_ADDRESS": "100000000/15m",
    "LATCHSTRING_LIMIT_REGISTER": "100000000/1h",
    "LATCHSTRING_LIMIT_REFRESH": "100000000/1m",
}

BARE = uvicorn("benchmarks.bare:app")
BARE_DATABASE = uvicorn("benchmarks.bare_database:app")
WATCHED = uvicorn("benchmarks.watched:create_app", "--factory")
WATCHED_FROM_THE_START = uvicorn("benchmarks.watched_start:create_app", "--factory")
DASHBOARD = request("GET", "/api/dashboard")


Run = Callable[[float], Coroutine[Any, Any, Load]]
"""Seconds to what was answered in them."""


@dataclass(frozen=True)
class Figure:
    """One line of the table: what was measured in each round, and the bound its median must keep."""

    promise: str
    measured: Sequence[float]
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""
    note: str = ""

    @property
    def is_kept(self) -> bool:
        """Whether the median is within the bound."""
        median = statistics.median(self.measured)
        return median >= (self.at_least or 0) and (self.at_most is None or median <= self.at_most)

    def line(self) -> str:
        """Return the line, in Markdown."""
        low, median, high = min(self.measured), statistics.median(self.measured), max(self.measured)
        bound = f"≥ {self.at_least:.2f}" if self.at_least is not None else f"≤ {self.at_most:.2f}"
        verdict = "kept" if self.is_kept else "**missed**"
        return (
            f"| {self.promise} | {bound}{self.unit} | {median:.2f}{self.unit} ({low:.2f} to {high:.2f})"
            f" | {verdict} | {self.note} |"
        )


@dataclass
class Side:
    """One of two that are compared: a server, the load on it, and what came of it in each round."""

    name: str
    server: Server
    run: Run
    loads: list[Load] = field(default_factory=list)
    cpu_microseconds: list[float] = field(default_factory=list)

    async def measure(self, seconds: float) -> None:
        """Take one round's measure."""
        before = self.server.cpu_seconds
        load = await self.run(seconds)
        self.loads.append(load)
        self.cpu_microseconds.append((self.server.cpu_seconds - before) / load.requests * 1e6)

    def __str__(self) -> str:
        rate = statistics.median(load.per_second for load in self.loads)
        return f"{self.name} {rate:.0f}/s, {statistics.median(self.cpu_microseconds):.0f} µs CPU each"


class Bench:
    """Where it runs: homes for servers, a database each, and how long a round lasts."""

    def __init__(self, folder: Path, *, seconds: int, new_postgresql_url: Callable[[], str] | None) -> None:
        self.seconds = seconds
        self._folder = folder
        self._new_postgresql_url = new_postgresql_url

    def home(self) -> Path:
        """Return an empty folder."""
        return Path(tempfile.mkdtemp(dir=self._folder))

    def database_of_ours(self) -> dict[str, str]:
        """Return the settings that name a database; SQLite makes itself one where there are none."""
        if self._new_postgresql_url is None:
            return {}
        return {"LATCHSTRING_DATABASE_URL": self._new_postgresql_url(), "LATCHSTRING_SECRET": SECRET}

    @contextlib.contextmanager
    def ours(
        self,
        variables: Mapping[str, str] | None = None,
        *,
        command: Sequence[str] = SERVE,
        cores: Sequence[int] = SERVER_CORE,
    ) -> Iterator[Server]:
        """Run our server on a home of its own, where Ada has registered."""
        home, variables = self.home(), self.database_of_ours() | dict(variables or {})
        if command is not SERVE:
            Server(SERVE, home=home, variables=variables, ready="/readyz").stop()  # makes schema and keys
        with Server(command, home=home, variables=variables, ready="/readyz", cores=cores) as server:
            server.ask("POST", "/api/auth/register", REGISTRATION_BODY)
            yield server

    def database_named(self) -> dict[str, str]:
        """Return the settings that name a new database, so that servers may come and go on it."""
        url = f"sqlite:///{self.home() / 'latchstring.db'}"
        return self.database_of_ours() or {"LATCHSTRING_DATABASE_URL": url, "LATCHSTRING_SECRET": SECRET}

    @contextlib.contextmanager
    def ours_again(self, variables: Mapping[str, str], *, command: Sequence[str] = SERVE) -> Iterator[Server]:
        """Run our server on a database that another one has made."""
        with Server(command, home=self.home(), variables=CHEAP_HASH | dict(variables), ready="/readyz") as server:
            yield server

    @contextlib.contextmanager
    def bare(self) -> Iterator[Server]:
        """Run the bare route."""
        with Server(BARE, home=self.home(), ready="/api/dashboard") as server:
            yield server

    @contextlib.contextmanager
    def bare_database(self) -> Iterator[Server]:
        """Run the bare login and refresh."""
        home = self.home()
        url = f"sqlite+aiosqlite:///{home / 'bare.db'}"
        if self._new_postgresql_url is not None:
            url = self._new_postgresql_url().replace("postgresql://", "postgresql+psycopg://")
        with Server(BARE_DATABASE, home=home, ready="/ready", variables={"BARE_DATABASE_URL": url}) as server:
            yield server

    async def compare(self, promise: str, ours: Side, bare: Side, *, at_least: float) -> Figure:
        """Compare how many requests a second the two answer."""
        await self._take_turns(ours, bare)
        ratios = [mine.per_second / its.per_second for mine, its in zip(ours.loads, bare.loads, strict=True)]
        return Figure(promise, ratios, at_least=at_least, note=f"{ours}; {bare}")

    async def compare_time(self, promise: str, ours: Side, bare: Side, *, at_most: float) -> Figure:
        """Compare the processor time that the two servers take for a request."""
        await self._take_turns(ours, bare)
        ratios = [mine / its for mine, its in zip(ours.cpu_microseconds, bare.cpu_microseconds, strict=True)]
        return Figure(promise, ratios, at_most=at_most, note=f"{ours}; {bare}")

    async def _take_turns(self, ours: Side, bare: Side) -> None:
        for side in (bare, ours):
            await side.run(WARM_UP_SECONDS)
        for _ in range(ROUNDS):
            for side in (bare, ours):
                await side.measure(self.seconds)


def hammering(server: Server, *requests: bytes, connections: int = CONNECTIONS) -> Run:
    """Return the load that sends the same requests over and over."""
    return lambda seconds: hammer(server.port, requests, connections=connections, seconds=seconds)


def signing_in(server: Server, *, users: int) -> Sequence[bytes]:
    """Let so many users register; return the requests by which each signs in."""
    emails = [f"user{number}@example.com" for number in range(users)]
    for email in emails:
        server.ask("POST", "/api/auth/register", json.dumps(registration(email)).encode())
    return [request("POST", "/api/auth/login", body=json.dumps(credentials(email)).encode()) for email in emails]


def refreshing(server: Server, *, login: str, refresh: str) -> Run:
    """Return the load in which every connection has a session of its own, and rotates its refresh token."""
    return following(server, login=login, path=refresh)


def following(server: Server, *, login: str, path: str, body: bytes = b"") -> Run:
    """Return the load in which every connection has a session, and shows the tokens that the last response set."""
    clients = [
        _only_new_tokens(cookie_follower("POST", path, server.ask("POST", login, LOGIN_BODY)[1], body=body))
        for _ in range(FEW_CONNECTIONS)
    ]
    return lambda seconds: converse(server.port, clients, seconds=seconds)


_REFRESH_TOKEN = re.compile(rb"set-cookie: *refresh_token=([^;]+)", re.IGNORECASE)


def _only_new_tokens(script: Script) -> Script:
    """Return the same client, which fails where an answer is not of the generation after the last one."""
    last = 0

    def checked(answer: bytes) -> bytes:
        nonlocal last
        if answer:
            found = _REFRESH_TOKEN.search(answer)
            generation = _payload(found[1].decode())["gen"] if found else None
            if generation is None or (last and generation != last + 1):
                raise RuntimeError(f"generation {generation} came after {last}: that was no rotation")
            last = generation
        return script(answer)

    return checked


def _payload(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    return claims


async def protected(bench: Bench) -> list[Figure]:
    """The guard alone: who is asking is known from the token."""
    return [await _guarded(bench, "protected route, claims only", "/api/dashboard", at_least=0.70)]


async def user(bench: Bench) -> list[Figure]:
    """The guard, and the user read from the database."""
    return [await _guarded(bench, "protected route, user read", "/api/auth/me", at_least=0.25)]


async def _guarded(bench: Bench, promise: str, path: str, *, at_least: float) -> Figure:
    with bench.ours(CHEAP_HASH) as ours, bench.bare() as bare:
        _, cookies = ours.ask("POST", "/api/auth/login", LOGIN_BODY)
        return await bench.compare(
            f"{promise}, of a bare route",
            Side("ours", ours, hammering(ours, request("GET", path, cookies=cookies))),
            Side("bare", bare, hammering(bare, DASHBOARD)),
            at_least=at_least,
        )


async def login(bench: Bench) -> list[Figure]:
    """Everything of a login but the hash."""
    with bench.ours(CHEAP_HASH | HIGH_LIMITS) as ours, bench.bare_database() as bare:
        sign_ins = signing_in(ours, users=USERS)
        figure = await bench.compare(
            "login without the hash, of a read, a committed insert and two signatures",
            Side("ours", ours, hammering(ours, *sign_ins)),
            Side("bare", bare, hammering(bare, request("POST", "/login", body=LOGIN_BODY))),
            at_least=0.5,
        )
    return [figure]


async def login_real(bench: Bench) -> list[Figure]:
    """The hash as it comes, on all cores: nothing else may matter."""
    threads = os.cpu_count() or 1
    with bench.ours(HIGH_LIMITS, cores=ALL_CORES) as server:
        sign_ins = signing_in(server, users=USERS_WITH_REAL_HASH)
        logins = Side("ours", server, hammering(server, *sign_ins, connections=max(CONNECTIONS, 2 * threads)))
        hashes: list[Load] = []
        cpu_microseconds: list[float] = []
        await logins.run(WARM_UP_SECONDS)
        for _ in range(ROUNDS):
            with server.paused():
                before = time.process_time()
                hashes.append(_hash(threads, seconds=bench.seconds))
                cpu_microseconds.append((time.process_time() - before) / hashes[-1].requests * 1e6)
            await logins.measure(bench.seconds)
    rate = statistics.median(load.per_second for load in hashes)
    return [
        Figure(
            "login with the hash, of what the cores can hash",
            [mine.per_second / most.per_second for mine, most in zip(logins.loads, hashes, strict=True)],
            at_least=0.85,
            note=f"{logins}; {threads} threads {rate:.0f}/s, {statistics.median(cpu_microseconds):.0f} µs CPU each",
        )
    ]


def _hash(threads: int, *, seconds: float) -> Load:
    hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
    began = time.perf_counter()

    def hash_until_the_end(_thread: int) -> int:
        made = 0
        while time.perf_counter() < began + seconds:
            hasher.hash("correct horse battery")
            made += 1
        return made

    # As nice as the server's own threads are: what else runs on this machine takes as much from the one as from the
    # other.
    with on_cores(ALL_CORES), ThreadPoolExecutor(threads, initializer=_be_nice) as pool:
        made = sum(pool.map(hash_until_the_end, range(threads)))
    return Load(made, time.perf_counter() - began, p99_ms=0)


def _be_nice() -> None:
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), HASHING_NICENESS)


async def refresh(bench: Bench) -> list[Figure]:
    """A refresh that rotates, each session on its own connection."""
    with bench.ours(CHEAP_HASH | HIGH_LIMITS) as ours, bench.bare_database() as bare:
        figure = await bench.compare(
            "refresh, of a committed update and two signatures",
            Side("ours", ours, refreshing(ours, login="/api/auth/login", refresh="/api/auth/refresh")),
            Side("bare", bare, refreshing(bare, login="/login", refresh="/refresh")),
            at_least=0.5,
        )
    return [figure]


async def storm(bench: Bench) -> list[Figure]:
    """The protected route while 16 clients sign in without a pause, on two cores."""
    at_rest: list[Load] = []
    stormy: list[Load] = []
    logins: list[Load] = []
    held: list[dict[str, float]] = []
    settings = {"LATCHSTRING_PASSWORD_HASH_THREADS": "2"} | HIGH_LIMITS
    with bench.ours(settings, command=WATCHED, cores=TWO_CORES) as server:
        _, cookies = server.ask("POST", "/api/auth/login", LOGIN_BODY)
        probe = hammering(server, request("GET", "/api/dashboard", cookies=cookies), connections=FEW_CONNECTIONS)
        sign_in = hammering(server, *signing_in(server, users=USERS_WITH_REAL_HASH), connections=16)
        await probe(WARM_UP_SECONDS)
        for _ in range(ROUNDS):
            at_rest.append(await probe(bench.seconds))
            server.ask("GET", "/held")
            hammered = asyncio.create_task(sign_in(bench.seconds + 1))
            await asyncio.sleep(0.5)
            stormy.append(await probe(bench.seconds))
            logins.append(await hammered)
            held.append(json.loads(server.ask("GET", "/held")[0]))
    longest = max(held, key=lambda seen: seen["held_ms"])
    p99s = [statistics.median(load.p99_ms for load in loads) for loads in (at_rest, stormy)]
    rate = statistics.median(load.per_second for load in logins)
    return [
        Figure(
            "p99 of the protected route in a storm of logins, of its p99 at rest",
            [storm.p99_ms / rest.p99_ms for storm, rest in zip(stormy, at_rest, strict=True)],
            at_most=3,
            note=f"{p99s[0]:.2f} ms at rest, {p99s[1]:.2f} ms under {rate:.0f} logins/s",
        ),
        Figure(
            "the longest the event loop was held meanwhile",
            [longest["held_ms"]],
            at_most=20,
            unit=" ms",
            note=f"{longest['busy_ms']:.1f} ms of it by its own work; with the kernel's share for others "
            f"{max(seen['late_ms'] for seen in held):.1f} ms",
        ),
    ]


async def feed(bench: Bench) -> list[Figure]:
    """A worker that nobody asks anything: it follows revocations and keys, and does nothing else."""
    note = f"{ROUNDS} times {IDLE_SECONDS} s, at {1 / POLL_INTERVAL_SECONDS:.0f} looks a second"
    figures = []
    with bench.ours(CHEAP_HASH) as plain, bench.ours({**CHEAP_HASH, "LATCHSTRING_METRICS_PORT": "0"}) as metered:
        await asyncio.sleep(WARM_UP_SECONDS)
        for promise, server in (
            ("an idle worker, of one core", plain),
            ("an idle worker with metrics and their port, of one core", metered),
        ):
            shares = []
            for _ in range(ROUNDS):
                before, began = server.cpu_seconds, time.perf_counter()
                await asyncio.sleep(IDLE_SECONDS)
                shares.append((server.cpu_seconds - before) / (time.perf_counter() - began) * 100)
            figures.append(Figure(promise, shares, at_most=1, unit=" %", note=note))
    return figures


async def revoked(bench: Bench) -> list[Figure]:
    """A hundred thousand sessions that were revoked in the last minutes, beside ten."""
    few, many = [bench.database_named(), bench.database_named()]
    for variables, count in ((few, FEW_REVOKED), (many, MANY_REVOKED)):
        await _revoke(bench, variables, count)
    sizes: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        with bench.ours_again(few) as small, bench.ours_again(many) as large:
            sizes.append((small.resident_mib, large.resident_mib))
    small_size, large_size = map(statistics.median, zip(*sizes, strict=True))
    memory = Figure(
        f"memory that {MANY_REVOKED:,} revoked sessions take",
        [large - small for small, large in sizes],
        at_most=25,
        unit=" MiB",
        note=f"{small_size:.1f} MiB with {FEW_REVOKED}, {large_size:.1f} MiB with {MANY_REVOKED:,}",
    )
    with bench.ours_again(few) as small, bench.ours_again(many) as large:
        sides = []
        for name, server in ((f"{MANY_REVOKED:,}", large), (f"{FEW_REVOKED}", small)):
            _, cookies = server.ask("POST", "/api/auth/login", LOGIN_BODY)
            sides.append(Side(name, server, hammering(server, request("GET", "/api/dashboard", cookies=cookies))))
        speed = await bench.compare(
            f"protected route with {MANY_REVOKED:,} revoked, of one with {FEW_REVOKED}", *sides, at_least=0.95
        )
    return [memory, speed, *await _held_by_loading(bench, few, many)]


async def _held_by_loading(bench: Bench, few: Mapping[str, str], many: Mapping[str, str]) -> list[Figure]:
    command = WATCHED_FROM_THE_START
    loading: list[tuple[dict[str, float], dict[str, float]]] = []
    for _ in range(ROUNDS):
        with bench.ours_again(few, command=command) as small, bench.ours_again(many, command=command) as large:
            loading.append((_held(small), _held(large)))
    with bench.ours_again(few, command=command) as small, bench.ours_again(many, command=command) as large:
        _held(small), _held(large)
        size = large.resident_mib
        # One page goes along with each look.
        await asyncio.sleep(RELOAD_INTERVAL_SECONDS + (MANY_REVOKED / PAGE_SIZE + 40) * POLL_INTERVAL_SECONDS)
        reloading = [(_held(small), _held(large))]
        grown = large.resident_mib - size
    return [
        Figure(
            f"the longest the event loop was held while {MANY_REVOKED:,} were {word}",
            [large["held_ms"] for _, large in seen],
            at_most=20,
            unit=" ms",
            note=f"{statistics.median(large['busy_ms'] for _, large in seen):.1f} ms of it by its own work; "
            f"with {FEW_REVOKED} {statistics.median(small['held_ms'] for small, _ in seen):.1f} ms{more}",
        )
        for word, seen, more in (("loaded", loading, ""), ("reloaded", reloading, f"; {grown:+.1f} MiB"))
    ]


def _held(server: Server) -> dict[str, float]:
    seen: dict[str, float] = json.loads(server.ask("GET", "/held")[0])
    return seen


async def _revoke(bench: Bench, variables: Mapping[str, str], count: int) -> None:
    """Let Ada register, and note that `count` sessions of others have been revoked."""
    with bench.ours_again(variables) as server:
        server.ask("POST", "/api/auth/register", REGISTRATION_BODY)
    database, now = Database(variables["LATCHSTRING_DATABASE_URL"]), datetime.now(UTC)
    try:
        for begin in range(0, count, REVOKED_AT_A_TIME):
            entries = [
                Revocation(
                    kind=RevocationKind.SESSION,
                    session_id=new_id(now),
                    user_id=new_id(now),
                    below_version=None,
                    reason=RevocationReason.LOGOUT,
                    expires_at=now + timedelta(hours=2),
                )
                for _ in range(begin, min(count, begin + REVOKED_AT_A_TIME))
            ]
            async with database.transaction() as connection:
                await insert_revocations(connection, entries, now=now)
    finally:
        await database.close()


async def start(bench: Bench) -> list[Figure]:
    """From the command to the first answer on an existing home, and the memory held then."""
    home, variables = bench.home(), bench.database_of_ours()
    Server(SERVE, home=home, variables=variables, ready="/readyz").stop()
    bare_home = bench.home()
    times, sizes, notes = [], [], []
    for _ in range(ROUNDS):
        with Server(BARE, home=bare_home, ready="/api/dashboard") as bare:
            its_time, its_size = bare.start_seconds, bare.resident_mib
        with Server(SERVE, home=home, variables=variables, ready="/readyz") as ours:
            times.append(ours.start_seconds / its_time)
            sizes.append(ours.resident_mib / its_size)
            notes.append((ours.start_seconds, its_time, ours.resident_mib, its_size))
    our_time, bare_time, our_size, bare_size = map(statistics.median, zip(*notes, strict=True))
    return [
        Figure("start until ready, of a bare one's", times, at_most=3, note=f"{our_time:.2f} s; {bare_time:.2f} s"),
        Figure(
            "memory before the first hash, of a bare one's",
            sizes,
            at_most=1.6,
            note=f"{our_size:.1f} MiB; {bare_size:.1f} MiB",
        ),
    ]


async def memory(bench: Bench) -> list[Figure]:
    """100,000 requests with thousands of distinct tokens, after as many as it remembers."""
    key = RSAKey.generate_key(3072)
    given = {"JWT_PRIVATE_KEY": base64.b64encode(key.as_pem(private=True)).decode()}
    with bench.ours(CHEAP_HASH | given) as server:
        _, cookies = server.ask("POST", "/api/auth/login", LOGIN_BODY)
        access = next(value for name, _, value in (one.partition("=") for one in cookies) if name == "access_token")
        requests = [
            request("GET", "/api/dashboard", cookies=[f"access_token={token}"])
            for token in _tokens_like(access, key, count=DISTINCT_TOKENS)
        ]
        run = hammering(server, *requests)
        sizes = [server.resident_mib]
        for count in (DISTINCT_TOKENS, REQUESTS_IT_STAYS_FLAT_OVER):
            made = 0
            while made < count:
                made += (await run(bench.seconds)).requests
            sizes.append(server.resident_mib)
    first, full, last = sizes
    note = f"{first:.1f} MiB at first, {full:.1f} MiB when it knew many tokens, {last:.1f} MiB at the end"
    return [Figure("memory after 100,000 requests more, of what it was", [last / full], at_most=1.05, note=note)]


async def sight(_bench: Bench) -> list[Figure]:
    """Measure what a token costs at first sight, and when it was seen before."""
    figures = []
    for algorithm in (Algorithm.RS256, Algorithm.ES256, Algorithm.EDDSA):
        tokens = Sight(algorithm)
        rounds = [(tokens.by_us(), tokens.by_the_library(), tokens.by_the_key()) for _ in range(SIGHT_ROUNDS)]
        ours, theirs, bare = (statistics.median(values) for values in zip(*rounds, strict=True))
        note = f"ours {ours:.0f} µs, joserfc {theirs:.0f} µs; of the signature alone ({bare:.0f} µs) {ours / bare:.2f}"
        figures.append(
            Figure(
                f"first sight of a token, {algorithm}, of the library's verification",
                [one / other for one, other, _ in rounds],
                at_most=1.3,
                note=note,
            )
        )
        again = [tokens.by_us_again() for _ in range(SIGHT_ROUNDS)]
        figures.append(Figure(f"a token seen before, {algorithm}", again, at_most=3, unit=" µs"))
    return figures


async def library(bench: Bench) -> list[Figure]:
    """Measure what the library costs the application that has it."""
    added, alone = import_seconds(), statistics.median(import_seconds_alone())
    note = f"beyond FastAPI and SQLAlchemy; {alone:.2f} s beyond FastAPI alone"
    figures = [Figure("importing `Auth`", added, at_most=0.3, unit=" s", note=note)]
    bare, installed = hosts(bench.home())
    rounds = [
        (await microseconds(bare, "/open"), await microseconds(installed, "/open")) for _ in range(LIBRARY_ROUNDS)
    ]
    note = f"of {statistics.median(without for without, _ in rounds):.1f} µs that the route takes without a server"
    more = [with_us - without for without, with_us in rounds]
    figures.append(Figure("a route that is not guarded, more", more, at_most=2, unit=" µs", note=note))
    async with signed_in(bench.home()) as (auth, token):
        guarded = auth.protect(plain)
        rounds = [
            (await microseconds(plain, "/file"), await microseconds(guarded, "/file", token))
            for _ in range(LIBRARY_ROUNDS)
        ]
    more = [with_us - without for without, with_us in rounds]
    return [*figures, Figure("the ASGI guard before an application, more", more, at_most=15, unit=" µs")]


async def pages(bench: Bench) -> list[Figure]:
    """Measure what a page costs, and how soon it is seen."""
    with bench.ours(CHEAP_HASH) as ours, bench.bare() as bare:
        figures = [
            await bench.compare_time(
                "the sign-in page, of a bare route's processor time",
                Side("ours", ours, hammering(ours, request("GET", "/sign-in"))),
                Side("bare", bare, hammering(bare, DASHBOARD)),
                at_most=3,
            )
        ]
    rounds = [await milliseconds_of_pages(bench.home()) for _ in range(ROUNDS)]
    dearest = max(rounds[0], key=lambda path: statistics.median(taken[path] for taken in rounds))
    each = ", ".join(f"{path} {statistics.median(taken[path] for taken in rounds):.2f}" for path in rounds[0])
    most = [taken[dearest] for taken in rounds]
    figures.append(Figure(f"the dearest page, {dearest}, its processor time", most, at_most=2, unit=" ms", note=each))
    with bench.ours(CHEAP_HASH, cores=ALL_CORES) as ours, on_cores(ALL_CORES):
        paints = await milliseconds_to_first_paint(f"http://localhost:{ours.port}/sign-in", times=ROUNDS)
    return [*figures, Figure("the sign-in page, first paint on this machine", paints, at_most=150, unit=" ms")]


def _tokens_like(token: str, key: RSAKey, *, count: int) -> Iterator[str]:
    """Sign tokens as the server would, for sessions it has not seen."""
    header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2])
    for _ in range(count):
        claims |= {"sid": str(uuid.uuid4()), "jti": base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()}
        yield jws.serialize_compact(header, json.dumps(claims, separators=(",", ":")), key, algorithms=[header["alg"]])


FIGURES: dict[str, Callable[[Bench], Awaitable[list[Figure]]]] = {
    "protected": protected,
    "user": user,
    "login": login,
    "login-real": login_real,
    "refresh": refresh,
    "storm": storm,
    "feed": feed,
    "revoked": revoked,
    "start": start,
    "memory": memory,
    "sight": sight,
    "library": library,
    "pages": pages,
}
