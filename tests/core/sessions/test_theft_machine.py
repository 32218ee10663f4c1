"""A state machine of a theft: an owner with two tabs, a thief with a copy of their tokens, and time (T1 to T5, T23).

    a tab sends ──▶ the service serves ──▶ the response arrives       each when the machine says; any may be lost

The machine sends each request to the real service, over HTTP, with a real database. `Contract` says which response is
due, and so who may be signed out, and when. The promises about a theft are asserted beside it, under "What must hold".

Requests are served one at a time, so SQLite is enough. Requests at the same instant are in test_races.py, test_theft.py
and the drills, on both databases.
"""

import asyncio
import base64
import contextlib
import itertools
import shutil
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Self
from uuid import UUID

import httpx2
import jwt
import pytest
import sqlalchemy as sa
import uvloop
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from latchstring.core.keys.key_set import make_private_pem
from latchstring.core.keys.settings import Algorithm
from latchstring.core.sessions.tables import sessions
from latchstring.foundation.audit import audit
from latchstring.testing import ManualClock
from tests.support.forge import Genuine
from tests.support.service import PASSWORD, Service, cheap_settings, credentials, quiet_app, registration

GRACE, FRESH = timedelta(seconds=30), timedelta(minutes=5)
OWNER, THIEF = "Firefox", "curl"
"""Who asks, by their User-Agent."""


class Proven(NamedTuple):
    """What tokens say of the proofs they were given for."""

    at_unix: int
    methods: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """Both tokens of one response, and what they say."""

    access: str
    refresh: str
    session_id: UUID
    generation: int
    proven: Proven
    access_expires_at: int
    refresh_expires_at: int

    @classmethod
    def of(cls, access: str, refresh: str) -> Self:
        said, bearer = (jwt.decode(token, options={"verify_signature": False}) for token in (access, refresh))
        proven, also = (Proven(token["auth_time"], tuple(token["amr"])) for token in (said, bearer))
        assert (said["sid"], proven) == (bearer["sid"], also), "both tokens say the same"
        return cls(access, refresh, UUID(said["sid"]), bearer["gen"], proven, said["exp"], bearer["exp"])


@dataclass
class Line:
    """What the contract knows of one session."""

    begun_at: datetime
    """When the current generation began."""
    begun_by: str | None = None
    generation: int = 1
    repeats: int = 0
    repeated_elsewhere_at: datetime | None = None
    ended: str | None = None


@dataclass(frozen=True)
class Due:
    """The response that is due: a refusal's code, tokens, or just a success."""

    code: str | None = None
    session_id: UUID | None = None
    """Of the tokens; None for those of a new session."""
    generation: int | None = None
    proven: Proven | None = None


DONE = Due()


class Contract:
    """Which response is due to a request, by the contract: so also who may be signed out, and when.

    A refresh with the newest tokens that a client holds is refused only where

    - their session was ended: by a sign-out, a password change, a sign-in in the same browser, or by another session's
      `DELETE /sessions` with a fresh proof;
    - they have expired;
    - they are used up: of the generation before the current one, which began longer ago than the grace, or older. A
      thief did that; or the response with the newer tokens was lost, or was overtaken by an older one, and no other one
      came within the grace.
    """

    def __init__(self, lines: dict[UUID, Line]) -> None:
        self.lines = lines
        self.password = PASSWORD

    @property
    def ended(self) -> set[UUID]:
        return {session_id for session_id, line in self.lines.items() if line.ended}

    def guard(self, pair: Pair, *, now: datetime) -> Due:
        if pair.access_expires_at <= now.timestamp():
            return Due("token_expired")
        return Due("session_ended") if self.lines[pair.session_id].ended else DONE

    def refresh(self, pair: Pair, *, now: datetime, by: str) -> Due:
        if pair.refresh_expires_at <= now.timestamp():
            return Due("token_expired")
        if self.lines[pair.session_id].ended:
            return Due("session_ended")
        return self._present(pair, proven=pair.proven, now=now, by=by)

    def confirm(self, pair: Pair, password: str, *, now: datetime, by: str) -> Due:
        due = self._prove(pair, password, now=now)
        if due.code is not None:
            return due
        confirmed = self._present(pair, proven=_confirmed(pair, now), now=now, by=by)
        # The right password is a new sign-in where the token is a used one, and no more.
        return confirmed if confirmed.code is None else _signed_in(now)

    def confirm_by_access_token(self, pair: Pair, password: str, *, now: datetime, by: str) -> Due:
        due = self._prove(pair, password, now=now)
        if due.code is not None:
            return due
        line = self.lines[pair.session_id]
        if pair.generation == line.generation or now - line.begun_at > GRACE:
            _begin_next(line, now=now, by=by)
        return Due(None, pair.session_id, line.generation, _confirmed(pair, now))

    def change_password(self, pair: Pair, password: str, new_password: str, *, now: datetime) -> Due:
        due = self._prove(pair, password, now=now)
        if due.code is not None:
            return due
        self.password = new_password
        self._end(self.lines, "password_changed")
        return Due(generation=1, proven=pair.proven)

    def sign_in(self, former: Pair | None, password: str, *, now: datetime) -> Due:
        if password != self.password:
            return Due("invalid_credentials")
        self._end([former.session_id] if former else [], "signed_in_again")
        return _signed_in(now)

    def sign_out(self, pair: Pair | None) -> Due:
        self._end([pair.session_id] if pair else [], "logout")
        return DONE

    def end_others(self, pair: Pair, *, now: datetime) -> Due:
        due = self.guard(pair, now=now)
        if due.code is None and now.timestamp() - pair.proven.at_unix > FRESH.total_seconds():
            return Due("insufficient_user_authentication")
        self._end(self.lines.keys() - {pair.session_id} if due.code is None else [], "revoked")
        return due

    def is_behind(self, pair: Pair, thief: str, *, now: datetime) -> bool:
        """Tells whether a thief rotated the session last, longer ago than the grace, and this was left behind."""
        line = self.lines[pair.session_id]
        lives = line.ended is None and pair.refresh_expires_at > now.timestamp()
        is_old = pair.generation < line.generation and now - line.begun_at > GRACE
        return lives and is_old and line.begun_by == thief

    def _prove(self, pair: Pair, password: str, *, now: datetime) -> Due:
        due = self.guard(pair, now=now)
        return Due("invalid_credentials") if due.code is None and password != self.password else due

    def _present(self, pair: Pair, *, proven: Proven, now: datetime, by: str) -> Due:
        line = self.lines[pair.session_id]
        if pair.generation == line.generation:
            _begin_next(line, now=now, by=by)
        elif pair.generation == line.generation - 1 and now - line.begun_at <= GRACE:
            line.repeats += 1
            line.repeated_elsewhere_at = line.repeated_elsewhere_at if by == line.begun_by else now
        else:
            line.ended = "refresh_reused"
            return Due("refresh_token_reused")
        return Due(None, pair.session_id, line.generation, proven)

    def _end(self, session_ids: Collection[UUID], reason: str) -> None:
        for session_id in session_ids:
            self.lines[session_id].ended = self.lines[session_id].ended or reason


def _begin_next(line: Line, *, now: datetime, by: str) -> None:
    line.generation, line.begun_at, line.begun_by = line.generation + 1, now, by


def _confirmed(pair: Pair, now: datetime) -> Proven:
    return Proven(int(now.timestamp()), tuple(dict.fromkeys((*pair.proven.methods, "pwd"))))


def _signed_in(now: datetime) -> Due:
    return Due(generation=1, proven=Proven(int(now.timestamp()), ("pwd",)))


@dataclass
class Exchange:
    """What a tab has sent, with the tokens that its client held then, and the response once there is one."""

    what: str
    shown: Pair | None
    password: str
    response: httpx2.Response | None = None


WHAT = st.sampled_from([*["refresh"] * 9, *["confirm"] * 7, "look", "change", "sign-in", "sign-out"])
"""Mostly what leaves the session alive, so that a theft has time to matter."""
AFTER = st.sampled_from([*[0] * 8, 1, 1, *[10] * 3, *[31] * 8, *[5 * 60] * 3, *[14 * 60] * 2, 61 * 60])
"""Seconds, mostly around the grace; then past a fresh proof, near an access token's end, and past a refresh token's.

They come with the steps. As a rule of its own, time would stand still in most examples, since Hypothesis leaves rules
out of an example by chance.
"""
WHICH = st.sampled_from([0, 0, 0, 1, 2])
"""Of the pairs that the thief has: mostly the newest."""
FIRST = st.booleans()


class TheftMachine(RuleBasedStateMachine):
    """One account: a client of its owner's with two tabs, and a thief who does not know the password."""

    def __init__(self, runner: asyncio.Runner, service: Service, *, is_browser: bool) -> None:
        super().__init__()
        self.runner = runner
        self.service = service
        self.is_browser = is_browser
        self.clock = service.clock
        self.http = service.browser()
        self.started_at = self.clock.now()
        self.email = f"ada{next(NUMBERS)}@example.com"
        answer = self.ask("POST", "register", json=registration(self.email))
        # By its tokens the session began with another proof than a password: a confirmation has something to add to.
        strong = [Genuine.of(answer.cookies[name], service).with_claims(amr=["otp"]) for name in COOKIES]
        self.user_id = UUID(answer.json()["id"])
        self.held: Pair | None = Pair.of(*strong)
        self.contract = Contract({self.held.session_id: Line(begun_at=self.now)})
        self.newest = {self.held.session_id: self.held}
        self.tabs: list[Exchange | None] = [None, None]
        self.loot: list[Pair] = []

    def teardown(self) -> None:
        """Sets the clock back, so that keys do not grow old from one example to the next."""
        self.clock.advance(seconds=(self.started_at - self.now).total_seconds())

    # --- The owner ----------------------------------------------------------------------------------------------------

    @precondition(lambda self: None in self.tabs)
    @rule(what=WHAT, after=AFTER)
    def ask_and_hear(self, what: str, after: int) -> None:
        """A tab sends a request, and hears the response at once."""
        self.clock.advance(seconds=after)
        tab = self.send(what)
        self.serve(tab)
        self.hear(tab)

    @precondition(lambda self: None in self.tabs)
    @rule(what=WHAT)
    def only_send(self, what: str) -> None:
        """A tab sends a request, which takes its time."""
        self.send(what)

    @precondition(lambda self: self.waiting(is_served=False))
    @rule(first=FIRST, after=AFTER)
    def only_serve(self, first: bool, after: int) -> None:  # noqa: FBT001
        """A request is served; its response takes its time."""
        self.clock.advance(seconds=after)
        self.serve(self.waiting(is_served=False)[0 if first else -1])

    @precondition(lambda self: self.waiting(is_served=True))
    @rule(first=FIRST)
    def only_hear(self, first: bool) -> None:  # noqa: FBT001
        """A response arrives, whatever the client holds by now."""
        self.hear(self.waiting(is_served=True)[0 if first else -1])

    @precondition(lambda self: self.tabs != [None, None])
    @rule(is_served=st.booleans())
    def lose(self, is_served: bool) -> None:  # noqa: FBT001
        """A request or a response is lost: the network is away, or the tab is closed."""
        for tab in self.waiting(is_served=is_served)[:1]:
            self.tabs[tab] = None

    def waiting(self, *, is_served: bool) -> list[int]:
        return [tab for tab, each in enumerate(self.tabs) if each and (each.response is not None) is is_served]

    def send(self, what: str) -> int:
        shown, now = self.held, self.now.timestamp()
        if shown is not None and shown.refresh_expires_at <= now:
            shown = None
        has_access = shown is not None and shown.access_expires_at > now
        if what in {"confirm", "change", "look"} and not has_access:
            what = "refresh"
        if what == "refresh" and shown is None:
            what = "sign-in"
        tab = self.tabs.index(None)
        self.tabs[tab] = Exchange(what, shown, self.contract.password)
        return tab

    def serve(self, tab: int) -> None:
        exchange = self.tabs[tab]
        assert exchange is not None
        self.take_a_moment()
        is_behind_the_thief = exchange.shown is not None and self.contract.is_behind(
            exchange.shown, THIEF, now=self.now
        )
        ended_before, new_password = self.contract.ended, f"another horse battery {len(self.newest)}"
        due = self.due(exchange, new_password)
        exchange.response = self.asked(exchange, new_password)
        self.check(exchange.response, due)
        # An old access token shown alone is no evidence: another tab may have refreshed meanwhile.
        is_judged = exchange.what == "refresh" or (exchange.what == "confirm" and self.is_browser and due.code is None)
        if is_behind_the_thief and is_judged:
            self.assert_theft_is_revealed(exchange.shown)
        self.assert_dead(self.contract.ended - ended_before)

    def hear(self, tab: int) -> None:
        exchange, self.tabs[tab] = self.tabs[tab], None
        assert exchange is not None
        assert exchange.response is not None
        self.held = pair_in(exchange.response) or self.held
        is_refused = exchange.what == "refresh" and not exchange.response.is_success and exchange.shown is self.held
        if is_refused or exchange.what == "sign-out":
            self.held = None

    def due(self, exchange: Exchange, new_password: str) -> Due:
        shown, password, now = exchange.shown, exchange.password, self.now
        if exchange.what == "sign-in":
            return self.contract.sign_in(shown if self.is_browser else None, password, now=now)
        if exchange.what == "sign-out":
            return self.contract.sign_out(shown)
        assert shown is not None
        match exchange.what:
            case "refresh":
                return self.contract.refresh(shown, now=now, by=OWNER)
            case "confirm" if self.is_browser:
                return self.contract.confirm(shown, password, now=now, by=OWNER)
            case "confirm":
                return self.contract.confirm_by_access_token(shown, password, now=now, by=OWNER)
            case "change":
                return self.contract.change_password(shown, password, new_password, now=now)
            case _:
                return self.contract.guard(shown, now=now)

    def asked(self, exchange: Exchange, new_password: str) -> httpx2.Response:
        shown, password = exchange.shown, exchange.password
        match exchange.what:
            case "sign-in" if not self.is_browser:
                form = {"grant_type": "password", "username": self.email, "password": password}
                return self.ask("POST", "token", data=form)
            case "refresh":
                return self.refresh(shown, door="refresh" if self.is_browser else "token")
            case "confirm":
                path, body = "confirm", {"password": password}
            case "change":
                path, body = "password/change", {"current_password": password, "new_password": new_password}
            case "sign-in":
                path, body = "login", credentials(self.email, password)
            case "sign-out":
                path, body = "logout", {}
            case _:
                return self.look(shown)
        return self.ask("POST", path, shown, by_bearer=not self.is_browser, json=body)

    # --- The thief ----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.can_steal)
    @rule()
    def steal(self) -> None:
        """The thief copies what the client holds, once, and waits."""
        assert self.held is not None
        self.loot, self.stolen_at = [self.held], self.now

    @precondition(lambda self: self.can_steal or self.shares_a_session)
    @rule(which=WHICH, door=st.sampled_from(["refresh", "token"]), after=AFTER)
    def shadow(self, which: int, door: str, after: int) -> None:
        """The thief refreshes the session that they share with the owner, once they have copied its tokens."""
        if not self.loot:
            self.steal()
        self.clock.advance(seconds=after)
        self.take_a_moment()
        shown, ended_before = self.looted(which), self.contract.ended
        due = self.contract.refresh(shown, now=self.now, by=THIEF)
        answer = self.refresh(shown, door=door, by=THIEF)
        self.check(answer, due)
        self.take(answer)
        self.assert_dead(self.contract.ended - ended_before)

    @precondition(lambda self: self.loot)
    @rule(which=WHICH, what=st.sampled_from(["guess", "look", "end others", "come back"]))
    def use(self, which: int, what: str) -> None:
        """The thief guesses the password, looks, shuts the owner out, or shows a token of a session that has ended."""
        shown = self.looted(which)
        if what == "guess":
            due = self.contract.confirm(shown, "not the password", now=self.now, by=THIEF)
            answer = self.ask("POST", "confirm", shown, by=THIEF, json={"password": "not the password"})
        elif what == "end others":
            due = self.contract.end_others(shown, now=self.now)
            answer = self.ask("DELETE", "sessions", shown, by=THIEF)
        elif what == "come back" and self.contract.lines[shown.session_id].ended is not None:
            due = self.contract.refresh(shown, now=self.now, by=THIEF)
            answer = self.refresh(shown, door="refresh", by=THIEF)
        else:
            due = self.contract.guard(shown, now=self.now)
            answer = self.look(shown, by=THIEF)
        self.check(answer, due)
        self.take(answer)

    @property
    def can_steal(self) -> bool:
        return not self.loot and self.held is not None and self.contract.lines[self.held.session_id].ended is None

    @property
    def shares_a_session(self) -> bool:
        has_ended = self.loot and self.contract.lines[self.loot[0].session_id].ended is not None
        return bool(self.loot) and not has_ended and self.loot[-1].refresh_expires_at > self.now.timestamp()

    def looted(self, which: int) -> Pair:
        return self.loot[-1 - which % len(self.loot)]

    def take(self, answer: httpx2.Response) -> None:
        got = pair_in(answer)
        if got is not None:
            self.assert_no_later_proof(got)
            self.loot.append(got)

    # --- What must hold -----------------------------------------------------------------------------------------------

    def assert_no_later_proof(self, got: Pair) -> None:
        """T1: no token that a thief gets has a proof that was given after the theft."""
        stolen = self.loot[0]
        assert got.session_id == stolen.session_id
        assert got.proven == stolen.proven
        assert got.proven.at_unix <= self.stolen_at.timestamp()

    def assert_theft_is_revealed(self, shown: Pair | None) -> None:
        """T2: a refresh or a confirmation of the owner's reveals a rotation of the thief's that is past the grace."""
        assert shown is not None
        reused = audit.c.fact == "session.refresh_reused", audit.c.session_id == shown.session_id
        assert len(self.read(sa.select(audit.c.id).where(*reused))) == 1
        assert self.contract.lines[shown.session_id].ended == "refresh_reused"

    def assert_dead(self, session_ids: Collection[UUID]) -> None:
        """T2, T3, T5, T23: no token of a session that has ended is taken, at any door, whoever shows it."""
        for session_id in session_ids:
            for pair in {self.newest[session_id], *(each for each in self.loot[-1:] if each.session_id == session_id)}:
                door, refused = [("refresh", 401), ("token", 400)][pair.generation % 2]
                answers = self.refresh(pair, door=door), self.look(pair)
                assert [answer.status_code for answer in answers] == [refused, 401]

    def check(self, answer: httpx2.Response, due: Due) -> None:
        """The response is the one that is due, and the database agrees: one generation rotates, repeats are counted."""
        heard = None if answer.is_success else answer.json().get("code")
        assert heard == due.code, answer.text
        pair = pair_in(answer)
        if pair is not None and due.session_id is None:
            assert pair.session_id not in self.contract.lines, "a session of its own"
            self.contract.lines[pair.session_id] = Line(begun_at=self.now)
        if pair is not None:
            assert pair.session_id == due.session_id or due.session_id is None
            self.newest[pair.session_id] = pair
        assert (pair and (pair.generation, pair.proven)) == (due.proven and (due.generation, due.proven))
        rows = self.read(sa.select(sessions).where(sessions.c.user_id == self.user_id))
        assert {row.id for row in rows} == self.contract.lines.keys()
        for row in rows:
            line = self.contract.lines[row.id]
            assert row.generation == line.generation
            assert (row.repeats, row.repeated_elsewhere_at) == (line.repeats, line.repeated_elsewhere_at)
            assert row.revoked_reason == line.ended or row.expires_at <= self.now

    # --- Over HTTP ----------------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        return self.clock.now()

    def take_a_moment(self) -> None:
        # An access token shown alone tells its generation to the second.
        self.clock.advance(seconds=0 if self.is_browser else 1)

    def refresh(self, shown: Pair | None, *, door: str, by: str = OWNER) -> httpx2.Response:
        assert shown is not None
        if door == "refresh":
            return self.ask("POST", "refresh", shown, by=by)
        return self.ask("POST", "token", by=by, data={"grant_type": "refresh_token", "refresh_token": shown.refresh})

    def look(self, shown: Pair | None, *, by: str = OWNER) -> httpx2.Response:
        return self.ask("GET", "/api/dashboard", shown, by=by, by_bearer=not self.is_browser)

    def ask(
        self,
        method: str,
        path: str,
        shown: Pair | None = None,
        *,
        by: str = OWNER,
        by_bearer: bool = False,
        json: object = None,
        data: dict[str, str] | None = None,
    ) -> httpx2.Response:
        headers = {"User-Agent": by}
        if shown is not None:
            cookie = "; ".join(
                f"{name}={token}" for name, token in zip(COOKIES, (shown.access, shown.refresh), strict=True)
            )
            headers |= {"Authorization": f"Bearer {shown.access}"} if by_bearer else {"Cookie": cookie}
        url = path if path.startswith("/") else f"/api/auth/{path}"
        answer = self.runner.run(self.http.request(method, url, headers=headers, json=json, data=data))
        self.http.cookies.clear()
        return answer

    def read(self, statement: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        async def rows() -> Sequence[sa.Row[Any]]:
            async with self.service.auth.parts.tools.database.reading() as connection:
                found: Sequence[sa.Row[Any]] = (await connection.execute(statement)).all()
                return found

        return self.runner.run(rows())


COOKIES = ("access_token", "refresh_token")
NUMBERS = itertools.count()
"""Each example has a user of its own, so that one service and one database are enough for all."""


def pair_in(answer: httpx2.Response) -> Pair | None:
    """Returns the tokens of a response, however they come."""
    found = answer.cookies if answer.cookies.get("access_token") else answer.json() if answer.content else {}
    return Pair.of(found["access_token"], found["refresh_token"]) if "access_token" in found else None


@contextlib.asynccontextmanager
async def quiet_service(database_url: str) -> AsyncIterator[Service]:
    """Runs one worker with nothing going on beside the requests."""
    clock = ManualClock()
    # Hundreds of pairs are signed here, and ES256 costs a tenth of RS256.
    key = {"jwt_algorithm": "ES256", "jwt_private_key": base64.b64encode(make_private_pem(Algorithm.ES256)).decode()}
    settings = cheap_settings(database_url, fresh_minutes=FRESH.total_seconds() / 60, **key)
    app = quiet_app(settings, clock)
    service = Service(app=app, auth=app.state.latchstring, clock=clock, settings=settings)
    await service.auth.parts.core.feed.poll()
    yield service
    await service.auth.close()


PLAYED = settings(
    # Of more than ten, Hypothesis makes most by mutating others. A fresh one is more likely to have a theft in it.
    max_examples=10,
    stateful_step_count=40,
    # To shrink a failing example takes minutes over HTTP. Its forty steps are soon read.
    phases=[Phase.reuse, Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.parametrize(
    "client", [f"{client} {number}" for client, times in (("browser", 5), ("bearer", 3)) for number in range(times)]
)
def test_a_theft_leads_to_no_later_proof_and_comes_to_light(client: str, sqlite_template: Path, tmp_path: Path) -> None:
    """T1 to T5, T23: whatever is sent, served, lost or crossed, and whenever."""
    path = shutil.copy(sqlite_template, tmp_path / "latchstring.db")
    is_browser = client.startswith("browser")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, running(runner, f"sqlite:///{path}") as service:
        run_state_machine_as_test(
            lambda: TheftMachine(runner, service, is_browser=is_browser),  # type: ignore[arg-type]  # any factory will do
            settings=PLAYED,
        )


@contextlib.contextmanager
def running(runner: asyncio.Runner, database_url: str) -> Iterator[Service]:
    """Keeps a service in the runner's event loop."""
    service = quiet_service(database_url)
    yield runner.run(service.__aenter__())
    runner.run(service.__aexit__(None, None, None))
