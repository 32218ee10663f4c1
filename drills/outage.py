"""The database is away under load, and comes back: nobody is let in blindly, nobody is signed out, nobody waits long.

    .venv/bin/python drills/outage.py [--rounds SECONDS]

PostgreSQL alone, one of its own. It is away twice, a second for each round: stopped, so that connections are refused;
and for twice as long it hangs (SIGSTOP), so that connections are accepted and nothing is said. Two workers serve five
visitors each, every one with cookies and a connection of their own, and each asks for one thing over and over: the
dashboard, `/me`, a login, a refresh; the last one signs out and in again. All limits are the defaults: a worker may let
people in for five seconds after its last look at the database.
"""

import asyncio
import contextlib
import secrets
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # makes `drills` and `tests.support` importable

import httpx2

from drills.ground import Figure, Says, main, serving
from drills.lines import Line, line_to_each_worker
from tests.support.postgres import OwnPostgres
from tests.support.process import ServerProcess
from tests.support.service import credentials, registration

WORKERS = 2
LAG_SECONDS = 5.0
LONGEST_SECONDS = 6.0
RECOVERY_SECONDS = 3.0
WARM_UP_SECONDS = 2.0
AFTERWARDS_SECONDS = 2.0
PAUSE_SECONDS = 0.05

Habit = Literal["dashboard", "me", "login", "refresh", "logout"]
HABITS: tuple[Habit, ...] = ("dashboard", "me", "login", "refresh", "logout")
REQUESTS: dict[Habit, tuple[str, str]] = {
    "dashboard": ("GET", "/api/dashboard"),
    "me": ("GET", "/api/auth/me"),
    "login": ("POST", "/api/auth/login"),
    "refresh": ("POST", "/api/auth/refresh"),
    "logout": ("POST", "/api/auth/logout"),
}


@dataclass(frozen=True, kw_only=True)
class Heard:
    """One answer."""

    what: Habit
    asked_at: float
    at: float
    status: int
    """0: the connection ended without an answer."""
    code: str | None = None
    is_polite: bool = False
    """A problem with Retry-After, as a 503 should be."""
    sets_cookies: bool = False


@dataclass(kw_only=True)
class Visitor:
    """Somebody with a habit, connected to one worker."""

    habit: Habit
    line: Line
    email: str = field(default_factory=lambda: f"{secrets.token_hex(8)}@example.com")
    heard: list[Heard] = field(default_factory=list)
    signed_out: list[Heard] = field(default_factory=list)
    """What the dashboard said to tokens whose sign-out was answered."""

    async def arrive(self) -> None:
        """Register."""
        answer = await self.line.ask("POST", "/api/auth/register", json=registration(self.email))
        assert answer.status_code == 201, answer.text

    async def go_on(self, ending: asyncio.Event) -> None:
        """Ask on and on."""
        while not ending.is_set():
            access = self.line.client.cookies.get("access_token")
            heard = await self._ask(self.habit)
            self.heard.append(heard)
            if self.habit == "logout" and heard.status == 200:
                self.signed_out.append(await self._show(access))
                while (back := await self._ask("login")).status != 200 and not ending.is_set():
                    self.heard.append(back)
                    await asyncio.sleep(PAUSE_SECONDS)
                self.heard.append(back)
            await asyncio.sleep(PAUSE_SECONDS)

    async def is_signed_in(self) -> bool:
        """Tell whether the cookies are still good for the dashboard."""
        return (await self._ask("dashboard")).status == 200

    async def _ask(self, what: Habit) -> Heard:
        method, path = REQUESTS[what]
        body = credentials(self.email) if what == "login" else None
        asked_at = time.monotonic()
        try:
            answer = await self.line.ask(method, path, json=body, keep_cookies=True)
        except httpx2.TransportError:
            return Heard(what=what, asked_at=asked_at, at=time.monotonic(), status=0)
        return _heard(what, answer, asked_at)

    async def _show(self, access: str | None) -> Heard:
        assert access is not None
        asked_at = time.monotonic()
        return _heard("dashboard", await self.line.ask("GET", "/api/dashboard", token=access), asked_at)


@dataclass(frozen=True, kw_only=True)
class Outage:
    """When the database was gone, and when it began to come back and was there."""

    down: float
    coming_up: float
    up: float

    def holds(self, heard: Heard) -> bool:
        """Tell whether something was asked and answered while there was no database."""
        return heard.asked_at > self.down and heard.at < self.coming_up


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A way to be away."""

    name: str
    begin: Callable[[OwnPostgres], None]
    end: Callable[[OwnPostgres], None]
    length: int
    """In seconds, for each round."""


KINDS = (
    Kind(name="stopped", begin=OwnPostgres.stop, end=OwnPostgres.start, length=1),
    Kind(name="hung", begin=OwnPostgres.hang, end=OwnPostgres.go_on, length=2),
)


def drill(
    url: str,  # noqa: ARG001 -- the given database can't be stopped
    *,
    rounds: int,
    kinds: Sequence[Kind] = KINDS,
) -> list[Figure]:
    """Return what was heard while a database of the drill's own was away for so many seconds."""
    if rounds <= LAG_SECONDS:
        raise ValueError(f"an outage of {rounds} s shows nothing of what comes after {LAG_SECONDS:.0f} s")
    figures: list[Figure] = []
    for kind in kinds:
        with OwnPostgres() as postgres, serving(postgres.create_database(), workers=WORKERS) as server:
            seen = [*asyncio.run(_live_through(server, postgres, kind, seconds=rounds * kind.length)), _quiet(server)]
        figures += [replace(figure, promise=f"{kind.name}: {figure.promise}") for figure in seen]
    return figures


async def _live_through(server: ServerProcess, postgres: OwnPostgres, kind: Kind, *, seconds: float) -> list[Figure]:
    async with _visitors(server) as visitors:
        ending = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for visitor in visitors:
                group.create_task(visitor.go_on(ending))
            await asyncio.sleep(WARM_UP_SECONDS)
            await asyncio.to_thread(kind.begin, postgres)
            down = time.monotonic()
            await asyncio.sleep(seconds)
            coming_up = time.monotonic()
            await asyncio.to_thread(kind.end, postgres)
            outage = Outage(down=down, coming_up=coming_up, up=time.monotonic())
            await asyncio.sleep(RECOVERY_SECONDS + AFTERWARDS_SECONDS)
            ending.set()
        signed_in = [await visitor.is_signed_in() for visitor in visitors]
    return [
        _refused_while_down(visitors, outage),
        _nobody_waits_long(visitors),
        _not_on_stale_knowledge(visitors, outage),
        _nobody_signed_out(visitors, still_signed_in=sum(signed_in)),
        _sign_outs_are_kept(visitors, outage),
        _recovered(visitors, outage),
    ]


@contextlib.asynccontextmanager
async def _visitors(server: ServerProcess) -> AsyncIterator[list[Visitor]]:
    """Give a visitor of each habit to each worker."""
    async with contextlib.AsyncExitStack() as stack:
        visitors: list[Visitor] = []
        for habit in HABITS:
            lines = await stack.enter_async_context(line_to_each_worker(server, workers=WORKERS))
            visitors += [Visitor(habit=habit, line=line) for line in lines]
        for visitor in visitors:
            await visitor.arrive()
        yield visitors


def _heard(what: Habit, answer: httpx2.Response, asked_at: float) -> Heard:
    is_problem = answer.headers["content-type"] == "application/problem+json"
    return Heard(
        what=what,
        asked_at=asked_at,
        at=time.monotonic(),
        status=answer.status_code,
        code=answer.json()["code"] if is_problem else None,
        is_polite=is_problem and "retry-after" in answer.headers,
        sets_cookies="set-cookie" in answer.headers,
    )


# --- what it comes to -------------------------------------------------------------------------------------------------


def _refused_while_down(visitors: Sequence[Visitor], outage: Outage) -> Figure:
    needy = [visitor for visitor in visitors if visitor.habit != "dashboard"]
    each = [[heard for heard in visitor.heard if outage.holds(heard)] for visitor in needy]
    asked = [heard for one in each for heard in one]
    refused = [heard for heard in asked if heard.status == 503]
    impolite = sum(not heard.is_polite for heard in refused)
    codes = Counter(heard.code or "none" for heard in refused)
    return Figure(
        "while the database is away, what needs it answers 503 with Retry-After",
        f"{len(refused)} of {len(asked)} requests, {impolite} of them without; "
        f"{', '.join(f'{count} × {code}' for code, count in codes.items())}",
        # `/me` is guarded first: once the lag is over, it says the same as the dashboard.
        is_kept=all(each)
        and len(refused) == len(asked)
        and impolite == 0
        and codes.keys() <= {"database_unavailable", "revocations_unknown"},
    )


def _nobody_waits_long(visitors: Sequence[Visitor]) -> Figure:
    everything = [heard for visitor in visitors for heard in visitor.heard]
    slowest = max(everything, key=lambda heard: heard.at - heard.asked_at)
    return Figure(
        f"no answer takes longer than {LONGEST_SECONDS:.0f} s",
        f"the slowest, {slowest.what}, {slowest.at - slowest.asked_at:.2f} s",
        is_kept=slowest.at - slowest.asked_at <= LONGEST_SECONDS,
        says=Says.SPEED,
    )


def _not_on_stale_knowledge(visitors: Sequence[Visitor], outage: Outage) -> Figure:
    each = [
        [heard for heard in visitor.heard if outage.holds(heard) and heard.what == "dashboard"]
        for visitor in visitors
        if visitor.habit == "dashboard"
    ]
    late = [[heard for heard in one if heard.asked_at > outage.down + LAG_SECONDS] for one in each]
    let_in = [heard.asked_at - outage.down for one in each for heard in one if heard.status == 200]
    # `/me` reads the user as well, and lets nobody in without it.
    me = [heard for visitor in visitors for heard in visitor.heard if heard.what == "me" and outage.holds(heard)]
    me_let_in = sum(heard.status == 200 for heard in me)
    refused = sum(heard.status == 503 for one in late for heard in one)
    asked = sum(len(one) for one in late)
    return Figure(
        "5 s after its last look at the database, no worker lets anybody in",
        f"the dashboard's last 200 was asked for {max(let_in, default=0):.2f} s after its end; {refused} of {asked} "
        f"asked for later than 5 s were 503; /me let {me_let_in} in at all",
        is_kept=all(late) and refused == asked and me_let_in == 0,
    )


def _nobody_signed_out(visitors: Sequence[Visitor], *, still_signed_in: int) -> Figure:
    everything = [heard for visitor in visitors for heard in visitor.heard]
    unauthorized = sum(heard.status == 401 for heard in everything)
    others = sorted({heard.status for heard in everything} - {200, 401, 503})
    cleared = sum(heard.sets_cookies for heard in everything if heard.status != 200)
    return Figure(
        "nobody is signed out, and nothing but 200 and 503 is heard",
        f"{len(everything)} answers: {unauthorized} × 401, {cleared} refusals that set cookies, "
        f"others {others or 'none'}; {still_signed_in} of {len(visitors)} are signed in at the end",
        is_kept=unauthorized == cleared == len(others) == 0 and still_signed_in == len(visitors),
    )


def _sign_outs_are_kept(visitors: Sequence[Visitor], outage: Outage) -> Figure:
    shown = [heard for visitor in visitors for heard in visitor.signed_out]
    since = sum(heard.asked_at > outage.up for heard in shown)
    let_in = sum(heard.status not in {401, 503} for heard in shown)
    return Figure(
        "a sign-out that was answered holds",
        f"{len(shown)} tokens shown afterwards, {since} of them since the return: {let_in} let in",
        is_kept=let_in == 0 and 0 < since < len(shown),
    )


def _recovered(visitors: Sequence[Visitor], outage: Outage) -> Figure:
    served = [
        [heard.at for heard in visitor.heard if heard.asked_at > outage.coming_up and heard.status == 200]
        for visitor in visitors
    ]
    slowest = max(one[0] - outage.up if one else float("inf") for one in served)
    late = sum(
        heard.status != 200
        for visitor in visitors
        for heard in visitor.heard
        if heard.asked_at > outage.up + RECOVERY_SECONDS
    )
    return Figure(
        "everybody is served again within 3 s of its return",
        f"the last of {len(visitors)} after {slowest:.2f} s; {late} refusals later than 3 s",
        is_kept=slowest <= RECOVERY_SECONDS and late == 0,
    )


def _quiet(server: ServerProcess) -> Figure:
    tracebacks = server.words().count("Traceback")
    return Figure("the log has sentences, no stack traces", f"{tracebacks} stack traces", is_kept=tracebacks == 0)


if __name__ == "__main__":
    sys.exit(main(drill, rounds=10, databases=("postgresql",)))
