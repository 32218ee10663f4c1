"""Who comes to the server in a drill: visitors with a kept-alive connection each, spread evenly over its workers.

    async with crowd(server, each=13, workers=4) as rows:   four rows, one for each worker, of thirteen visitors
        answer = await rows[0][0].ask("POST", REFRESH, token=…)         or cookies=…, as a browser
        await life_after([row[0] for row in rows], access, since=…)     how long an ended session's token was taken

    async with operator(url) as auth:                       the same database from beside, without a server

A connection is sent and read here, byte by byte: a client library would take more of the two cores than the server.
"""

import asyncio
import contextlib
import json
import math
import re
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, cast
from urllib.parse import urlencode, urlsplit
from uuid import UUID

import jwt
import psutil
import sqlalchemy as sa

from drills.ground import Figure, Says
from latchstring import Auth
from tests.support.hang import HANG_SECONDS
from tests.support.process import ServerProcess
from tests.support.service import cheap_settings, registration

WORKERS = 4
CONFIRM = "/api/auth/confirm"
DASHBOARD = "/api/dashboard"
LOGIN = "/api/auth/login"
LOGOUT = "/api/auth/logout"
PASSWORD_CHANGE = "/api/auth/password/change"
REFRESH = "/api/auth/refresh"
REGISTER = "/api/auth/register"
SESSIONS = "/api/auth/sessions"
SIGN_IN = "/sign-in"
SIGN_OUT = "/sign-out"
TOKEN = "/api/auth/token"

ENDED = frozenset({"session_ended"})
"""What is said of a token of a session that has ended."""

WITHIN_SECONDS = 1.0
"""How long after its end a session's access token may still be taken by another worker."""

_ANSWER_SECONDS = HANG_SECONDS
_START_SECONDS = 2 * HANG_SECONDS
_GIVEN_UP_SECONDS = HANG_SECONDS
_STANDSTILL_SECONDS = 2.0
_LOOK_SECONDS = 0.01
_KEEP_ALIVE_SECONDS = 2.0  # uvicorn hangs up after five
_SET_COOKIE = re.compile(r"^set-cookie: *([^=;\r]+)=([^;\r]*)", re.IGNORECASE | re.MULTILINE)
_CONTENT_LENGTH = re.compile(r"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)


def _claims(token: str) -> dict[str, Any]:
    said: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return said


class Pair(NamedTuple):
    """The tokens of one answer."""

    access: str
    refresh: str

    @property
    def session_id(self) -> UUID:
        """Whose they are."""
        return UUID(self._claims["sid"])

    @property
    def as_cookies(self) -> dict[str, str]:
        """How a browser holds them."""
        return {"access_token": self.access, "refresh_token": self.refresh}

    @property
    def user_id(self) -> UUID:
        """Who is signed in."""
        return UUID(self._claims["sub"])

    @property
    def generation(self) -> int:
        """How often the session was refreshed, counted from one."""
        return cast("int", self._claims["gen"])

    @property
    def auth_times(self) -> tuple[int, ...]:
        """When each of the two says that something was last proven, in seconds since 1970."""
        return tuple(_claims(token)["auth_time"] for token in self)

    @property
    def _claims(self) -> dict[str, Any]:
        return _claims(self.refresh)


@dataclass(frozen=True)
class Answer:
    """What a visitor heard, and when."""

    status: int
    body: str = field(repr=False)
    cookies: Mapping[str, str] = field(repr=False)
    sent_at: float
    answered_at: float
    is_told_to_wait: bool = False
    """It has a Retry-After."""

    @property
    def is_success(self) -> bool:
        """Any 2xx."""
        return 200 <= self.status < 300

    @property
    def pair(self) -> Pair:
        """The tokens in the answer's cookies; in its body, where a client got them that keeps no cookies."""
        said = self.cookies or json.loads(self.body)
        return Pair(said["access_token"], said["refresh_token"])

    @property
    def code(self) -> str:
        """The refusal's code; for a success, its status."""
        return str(self.status) if self.is_success else str(json.loads(self.body)["code"])

    @property
    def seconds(self) -> float:
        """How long the visitor waited."""
        return self.answered_at - self.sent_at


class Visitor:
    """One connection, which stays with the worker that took it. It keeps no cookies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()

    @classmethod
    async def of(cls, server: ServerProcess) -> Self:
        """Connect."""
        return cls(*await asyncio.open_connection("127.0.0.1", urlsplit(server.url).port))

    @property
    def is_busy(self) -> bool:
        """Whether it awaits an answer."""
        return self._turn.locked()

    async def ask(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        cookies: Mapping[str, str] | None = None,
        agent: str | None = None,
        body: object = None,
        form: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request, and return its answer; whoever asks meanwhile waits for its turn.

        Args:
            method: of the request.
            path: of the request.
            token: goes into the Authorization header.
            cookies: by their names.
            agent: the `User-Agent`.
            body: what is sent as JSON.
            form: what is sent as a form instead.
        """
        content = urlencode(form).encode() if form else b"" if body is None else json.dumps(body).encode()
        kind = "application/x-www-form-urlencoded" if form else "application/json"
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(content)}"]
        lines += [f"Authorization: Bearer {token}"] if token else []
        lines += ["Cookie: " + "; ".join(f"{name}={value}" for name, value in cookies.items())] if cookies else []
        lines += [f"User-Agent: {agent}"] if agent else []
        lines += [f"Content-Type: {kind}"] if content else []
        request = "\r\n".join([*lines, "", ""]).encode() + content
        async with self._turn, asyncio.timeout(_ANSWER_SECONDS):
            sent_at = time.monotonic()
            self._writer.write(request)
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = _CONTENT_LENGTH.search(head)
            text = (await self._reader.readexactly(int(length[1]) if length else 0)).decode()
            answered_at = time.monotonic()
        return Answer(
            status=int(head.split(" ", 2)[1]),
            body=text,
            cookies=dict(_SET_COOKIE.findall(head)),
            sent_at=sent_at,
            answered_at=answered_at,
            is_told_to_wait="\r\nretry-after:" in head.lower(),
        )

    async def registered(self, email: str) -> Pair:
        """Register somebody, and return the first tokens, which are good."""
        answer = await self.ask("POST", REGISTER, body=registration(email))
        assert answer.status == 201, answer.body
        seen = await self.ask("GET", DASHBOARD, token=answer.pair.access)
        assert seen.status == 200, seen.body
        return answer.pair

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


@contextlib.asynccontextmanager
async def crowd(server: ServerProcess, *, each: int, workers: int) -> AsyncIterator[list[list[Visitor]]]:
    """Give so many visitors for each worker, all connected; none is hung up on while it has nothing to ask."""
    rows: list[list[Visitor]] = []
    # From the first one on: where every core is busy, the others may take longer to connect than a server waits.
    keeping = asyncio.create_task(_keep_alive(rows))
    try:
        for running in await asyncio.to_thread(workers_of, server, workers):
            row: list[Visitor] = []
            rows.append(row)
            await _fill(row, server, running, each=each)
        for row in rows:
            # A worker that was stopped for long lets nobody in before its next poll.
            while not (await row[0].ask("GET", "/readyz")).is_success:  # noqa: ASYNC110 -- it tells nobody
                await asyncio.sleep(_LOOK_SECONDS)
        yield rows
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        await asyncio.gather(*(visitor.close() for row in rows for visitor in row))


async def _fill(row: list[Visitor], server: ServerProcess, running: psutil.Process, *, each: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        assert time.monotonic() < deadline, "a worker takes no connections"
        # Left to themselves, the workers share connections that come at once very unevenly: 20, 0, 0 and 0. But one
        # that stands still for five seconds is killed by its supervisor, and this one may have yet to start.
        with alone(running, server), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STANDSTILL_SECONDS):
                while len(row) < each:
                    row.append(await _connected(server))
        if len(row) == each:
            return
        # The others have to tell their supervisor meanwhile that they live.
        await asyncio.sleep(_STANDSTILL_SECONDS / 2)


async def _connected(server: ServerProcess) -> Visitor:
    visitor = await Visitor.of(server)
    try:
        await visitor.ask("GET", "/healthz")
    except BaseException:
        await visitor.close()
        raise
    return visitor


def workers_of(server: ServerProcess, workers: int) -> list[psutil.Process]:
    """Return the processes that serve, once all of them are there."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        below = psutil.Process(server.pid).children(recursive=True)
        found = [process for process in below if not any("resource_tracker" in word for word in process.cmdline())]
        if len(found) == workers:
            return found
        time.sleep(_LOOK_SECONDS)
    raise AssertionError(f"the server has not {workers} workers")


@contextlib.contextmanager
def alone(running: psutil.Process, server: ServerProcess) -> Iterator[None]:
    """Stop all workers but one: left to themselves, they share new connections very unevenly."""
    others = [process for process in psutil.Process(server.pid).children(recursive=True) if process != running]
    try:
        for other in others:
            other.suspend()
        while any(other.status() != psutil.STATUS_STOPPED for other in others):
            time.sleep(0.001)
        yield
    finally:
        for other in others:
            other.resume()


async def _keep_alive(rows: Sequence[Sequence[Visitor]]) -> None:
    while True:
        await asyncio.sleep(_KEEP_ALIVE_SECONDS)
        idle = [visitor for row in rows for visitor in row if not visitor.is_busy]
        await asyncio.gather(*(visitor.ask("GET", "/healthz") for visitor in idle))


async def life_after(
    watchers: Sequence[Visitor], access: str, *, since: float, refusals: Collection[str] = ENDED
) -> float:
    """Return how long after `since` the last request was sent that still got past the guard; `inf`: it went on.

    When it returns, each of the watchers has heard one of the `refusals`: that the session has ended.
    """
    return max(await asyncio.gather(*(_life_on(x, access, since=since, refusals=refusals) for x in watchers)))


async def _life_on(watcher: Visitor, access: str, *, since: float, refusals: Collection[str]) -> float:
    taken = 0.0
    while taken < _GIVEN_UP_SECONDS:
        answer = await watcher.ask("GET", DASHBOARD, token=access)
        if answer.code in refusals:
            return taken
        assert answer.status == 200, answer.body
        taken = max(answer.sent_at - since, 0.0)
        await asyncio.sleep(_LOOK_SECONDS)
    return math.inf


def soon_refused(lives: Sequence[float]) -> Figure:
    """Judge how long after their ends tokens were taken; that they are refused at all is another figure's."""
    return Figure(
        promise="a worker takes such an access token for no more than a second",
        seen=f"for {max(lives, default=0.0):.2f} s at most",
        is_kept=max(lives, default=0.0) <= WITHIN_SECONDS,
        says=Says.SPEED,
    )


async def codes_heard(watchers: Sequence[Visitor], method: str, path: str, *, token: str) -> set[str]:
    """Return what the watchers hear who ask the same at once."""
    answers = await asyncio.gather(*(watcher.ask(method, path, token=token) for watcher in watchers))
    return {answer.code for answer in answers}


async def refresh_codes(watchers: Sequence[Visitor], pairs: Sequence[Pair]) -> set[str]:
    """Return what the watchers hear who refresh with each of a session's pairs, the newest first.

    Shown after a copy, a session's current token would be refused for the copy's sake, and prove nothing.
    """
    codes = [await codes_heard(watchers, "POST", REFRESH, token=pair.refresh) for pair in pairs]
    return set().union(*codes)


@contextlib.asynccontextmanager
async def operator(url: str) -> AsyncIterator[Auth]:
    """Give the operator's way in."""
    auth = Auth.from_settings(cheap_settings(url), features=())
    try:
        yield auth
    finally:
        await auth.close()


async def rows_of(auth: Auth, statement: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
    """Return what the database says."""
    async with auth.parts.tools.database.reading() as connection:
        found: Sequence[sa.Row[Any]] = (await connection.execute(statement)).all()
        return found
