"""A thief shares a session with its owner, and both act at the same instant, on different workers.

    .venv/bin/python drills/thief.py [--rounds N] [--database sqlite|postgresql]

Each session was created two hours ago; both hold its tokens. While the thief refreshes, the owner, round by round,

1. confirms with the password, and another tab of the same browser refreshes,
2. changes the password,
3. signs out,
4. signs in again in the same browser,
5. refreshes or confirms, an hour after the thief has refreshed: that is longer ago than the grace.

The owner's tabs then go on, and the thief tries to end the owner's other sessions. That needs a fresh proof.
"""

import asyncio
import math
import sys
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from uuid import UUID

import httpx2
import sqlalchemy as sa

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from drills.ground import Figure, bearer, main, serving
from drills.visitors import (
    CONFIRM,
    DASHBOARD,
    ENDED,
    LOGIN,
    LOGOUT,
    PASSWORD_CHANGE,
    REFRESH,
    SESSIONS,
    SIGN_IN,
    SIGN_OUT,
    TOKEN,
    WITHIN_SECONDS,
    WORKERS,
    Answer,
    Pair,
    Visitor,
    codes_heard,
    crowd,
    life_after,
    operator,
    refresh_codes,
    rows_of,
)
from latchstring import Auth
from latchstring.core.sessions.rules import Client
from latchstring.core.sessions.tables import sessions
from latchstring.foundation.audit import audit
from latchstring.foundation.events import RefreshRepeatedElsewhere, RefreshTokenReused
from latchstring.testing import ManualClock
from tests.support.process import ServerProcess
from tests.support.service import PASSWORD, cheap_settings, credentials, running_service

CREATED_HOURS_AGO, STOLEN_HOURS_AGO = 2, 1
NEW_PASSWORD = "another horse battery"
OWNER, THIEF = "Firefox", "curl"
"""What each sends as `User-Agent`."""

_NOT_FRESH = "insufficient_user_authentication"
_LEADS = (0.0, 0.001, 0.0, 0.004, 0.0005, 0.0, 0.016, 0.002, 0.008)
"""How long one waits after the other began, in seconds. Every third is none: those overlap on any machine."""
_OWNER_TAKES = 8
"""So many times as long the thief waits. A refresh is quick: it would always come first."""


class Case(StrEnum):
    """What the owner does; the round's number chooses."""

    CONFIRMS = "a confirmation"
    CHANGES_PASSWORD = "a password change"
    SIGNS_OUT = "a sign-out"
    SIGNS_IN_AGAIN = "a sign-in in the same browser"
    COMES_LATE = "a refresh or confirmation that comes late"


_CASES = tuple(Case)
_REASONS = {
    Case.CONFIRMS: None,
    Case.CHANGES_PASSWORD: "password_changed",
    Case.SIGNS_OUT: "logout",
    Case.SIGNS_IN_AGAIN: "signed_in_again",
    Case.COMES_LATE: "refresh_reused",
}
"""Why the shared session has ended when all is over."""


class Door(StrEnum):
    """Where, and how, a refresh token is shown."""

    COOKIES = "cookies"
    HEADER = "header"
    FORM = "form"


_DOORS = tuple(Door)


@dataclass(frozen=True)
class Turn:
    """What a round's number decides."""

    number: int
    shared: Pair
    """The tokens that the owner has; the thief, too."""
    stolen: Pair
    """What the thief holds: the same, or what they were exchanged for an hour ago."""

    @property
    def case(self) -> Case:
        """What the owner does."""
        return _CASES[self.number % len(_CASES)]

    @property
    def email(self) -> str:
        """The owner's."""
        return _email(self.number)

    @property
    def of_case(self) -> int:
        """How many rounds of the same case came before."""
        return self.number // len(_CASES)

    @property
    def is_other_way(self) -> bool:
        """Whether the owner, where there are two ways, takes the second one: a bearer token, a page, a confirmation."""
        return self.of_case % 2 == 1

    @property
    def leads(self) -> tuple[float, float]:
        """How long the owner waits, and the thief."""
        lead = _LEADS[self.of_case // 4 % len(_LEADS)]
        return (0.0, lead * _OWNER_TAKES) if self.of_case // 2 % 2 else (lead, 0.0)

    @property
    def thief_refreshes(self) -> bool:
        """Whether the thief does so at the same time, or tries to end the owner's other sessions.

        Who comes late is to find that the last refresh is an hour old, be it the thief or the owner who is first.
        """
        return self.case is not Case.COMES_LATE or self.of_case // 2 % 2 == 1

    @property
    def door(self) -> Door:
        """Where the thief refreshes."""
        return _DOORS[self.number % len(_DOORS)]

    @property
    def stays_signed_in(self) -> bool:
        """Whether the owner has a session when all is done: after a sign-out, and a refresh that comes late, none."""
        return self.case is not Case.SIGNS_OUT and (self.case is not Case.COMES_LATE or self.is_other_way)

    @property
    def thief_may_hear(self) -> set[str]:
        """The codes that do the owner no harm, where the owner ends the session."""
        return {"200" if self.thief_refreshes else _NOT_FRESH, *ENDED}

    def is_right(self, answer: Answer) -> bool:
        """Tell whether the owner got what they asked for; who comes late with a refresh learns of the theft."""
        if self.case is Case.COMES_LATE and not self.is_other_way:
            return (answer.status, answer.code) == (401, "refresh_token_reused")
        if answer.status not in {200, 204, 303}:
            return False
        return not self.stays_signed_in or answer.pair.session_id != self.shared.session_id


@dataclass(frozen=True)
class End:
    """What became of the shared session's tokens, once its owner had ended it."""

    pairs: Sequence[Pair]
    refresh_codes: set[str]
    """What every worker answers to each refresh token, right after the two answers."""
    life: float
    """How long after the owner's answer an access token was still taken by any worker."""


@dataclass(frozen=True)
class Round:
    """What everybody heard."""

    turn: Turn
    owner: Answer
    thief: Answer
    is_answered_well: bool
    is_thief_first: bool
    gained: Sequence[Pair]
    """All that was ever issued to the thief."""
    tries: Sequence[str]
    """What the thief heard who tried to end the owner's other sessions."""
    tabs: Sequence[Answer]
    """The next refreshes of the owner's tabs."""
    owners_try: str | None = None
    """What the owner heard who did so with the proof just given."""
    repeats: Counter[str] = field(default_factory=Counter)
    """Repeated refreshes from another browser than the one that rotated, by who repeated."""
    end: End | None = None

    @property
    def has_overlapped(self) -> bool:
        """Whether both were under way at the same time."""
        begun = max(self.owner.sent_at, self.thief.sent_at)
        return begun < min(self.owner.answered_at, self.thief.answered_at)

    @property
    def fresh_tokens(self) -> int:
        """How many of the thief's tokens say that something was proven after the theft."""
        stolen_with = max(self.turn.shared.auth_times)
        return sum(auth_time > stolen_with for pair in self.gained for auth_time in pair.auth_times)

    @property
    def lives_on(self) -> Pair | None:
        """The owner's newest tokens."""
        return next((tab.pair for tab in self.tabs if tab.is_success), None)


@dataclass(frozen=True)
class Aftermath:
    """When all is over."""

    reasons: Mapping[UUID, str | None]
    """Why each session has ended, as its row says."""
    repeated: Counter[tuple[UUID, str]]
    """The events of repeats from elsewhere, by session and User-Agent."""
    reused: Counter[tuple[UUID, str]]
    dead: Counter[str]
    """What the workers answer to every access token of the sessions that have ended."""
    living: Counter[str]
    """The same for the owner's that live."""


def drill(url: str, *, rounds: int, workers: int = WORKERS, within: float = WITHIN_SECONDS) -> list[Figure]:
    """Return what was seen; `within` is how long a token may be taken after the answer that ended its session."""
    with serving(url, workers=workers) as server:
        seen, aftermath = asyncio.run(_rounds(server, url, rounds=rounds, workers=workers))
    return _figures(seen, aftermath, within=within)


async def _rounds(server: ServerProcess, url: str, *, rounds: int, workers: int) -> tuple[list[Round], Aftermath]:
    turns = await _turns(url, rounds)
    async with crowd(server, each=4, workers=workers) as rows, operator(url) as auth:
        scene = _Scene(rows, auth)
        for turn in turns:
            await (scene.confirms(turn) if turn.case is Case.CONFIRMS else scene.ends(turn))
        seen = await scene.rounds()
        return seen, await scene.aftermath(seen)


async def _turns(url: str, rounds: int) -> list[Turn]:
    """Register everybody hours ago: no proof of then is fresh, and each later one is seen to be later."""
    clock = ManualClock()
    clock.advance(hours=-CREATED_HOURS_AGO)
    settings = cheap_settings(url, access_token_expire_minutes=1440, refresh_token_expire_minutes=1440)
    turns = []
    async with running_service(settings, clock) as service:
        for number in range(rounds):
            shared = _pair_of(await service.registered(_email(number)))
            turns.append(Turn(number, shared, shared))
        clock.advance(hours=CREATED_HOURS_AGO - STOLEN_HOURS_AGO)
        for number in range(_CASES.index(Case.COMES_LATE), rounds, len(_CASES)):
            shared = turns[number].shared
            thief = service.browser(headers={"User-Agent": THIEF})
            answer = await thief.post(REFRESH, headers=bearer(shared.refresh))
            assert answer.status_code == 200, answer.text
            turns[number] = Turn(number, shared, _pair_of(answer))
    return turns


def _pair_of(said: httpx2.AsyncClient | httpx2.Response) -> Pair:
    return Pair(said.cookies["access_token"], said.cookies["refresh_token"])


def _email(number: int) -> str:
    return f"owner{number}@example.com"


class _Scene:
    """On every worker a watcher, an owner, another tab of an owner, and a thief."""

    def __init__(self, rows: Sequence[Sequence[Visitor]], auth: Auth) -> None:
        self._rows = rows
        self._watchers = [row[0] for row in rows]
        self._auth = auth
        self._seen: list[Round] = []
        self._under_way: list[asyncio.Task[Round]] = []

    def _cast(self, turn: Turn) -> tuple[Visitor, Visitor, Visitor]:
        """Return the owner, the other tab, and the thief, who is never at the owner's worker."""
        workers = len(self._rows)
        owner = (turn.of_case // 2 + turn.number) % workers
        thief = (owner + 1 + turn.of_case % (workers - 1)) % workers
        return self._rows[owner][1], self._rows[(thief + 1) % workers][2], self._rows[thief][3]

    async def confirms(self, turn: Turn) -> None:
        """Let the owner confirm while another tab and the thief refresh; then all go on from what they got."""
        owner, tab, thief = self._cast(turn)
        door = Door.FORM if turn.is_other_way else Door.COOKIES
        confirmed, stolen, refreshed = await asyncio.gather(
            _after(turn.leads[0], _confirm(owner, turn.shared, is_bearer=turn.is_other_way)),
            _after(turn.leads[1], _refresh(thief, turn.shared, agent=THIEF, door=turn.door)),
            _refresh(tab, turn.shared, agent=OWNER, door=door),
        )
        is_thief_first = await self._is_rotated_by_thief(turn.shared)
        repeats = Counter([OWNER] * (1 if turn.is_other_way else 2) if is_thief_first else [THIEF])
        answers, gained, tries = [confirmed, stolen, refreshed], _pairs([stolen]), list[str]()
        tabs: Sequence[Answer] = ()
        owners_try = None
        if all(answer.is_success for answer in answers):
            tries.append((await _end_others(thief, stolen.pair, agent=THIEF)).code)
            again = await _refresh(thief, stolen.pair, agent=THIEF, door=turn.door)
            tabs = await asyncio.gather(
                _refresh(owner, confirmed.pair, agent=OWNER, door=door),
                _refresh(tab, refreshed.pair, agent=OWNER, door=door),
            )
            repeats[OWNER] += len(tabs)
            gained = _pairs([stolen, again])
            tries.append((await _end_others(thief, gained[-1], agent=THIEF)).code)
            answers.append(again)
            if tabs[0].is_success:
                owners_try = (await _end_others(owner, tabs[0].pair, agent=OWNER)).code
        self._seen.append(
            Round(
                turn=turn,
                owner=confirmed,
                thief=stolen,
                is_answered_well=all(answer.status == 200 for answer in answers),
                is_thief_first=is_thief_first,
                gained=gained,
                tries=tries,
                tabs=tabs,
                owners_try=owners_try,
                repeats=repeats,
            )
        )

    async def ends(self, turn: Turn) -> None:
        """Let the owner end the session while the thief refreshes; see, meanwhile, what becomes of its tokens."""
        owner, _, thief = self._cast(turn)
        if turn.thief_refreshes:
            theft = _refresh(thief, turn.stolen, agent=THIEF, door=turn.door)
        else:
            theft = _end_others(thief, turn.stolen, agent=THIEF)
        ended, stolen = await asyncio.gather(_after(turn.leads[0], _end(owner, turn)), _after(turn.leads[1], theft))
        self._under_way.append(asyncio.create_task(self._watch(turn, ended, stolen)))

    async def _watch(self, turn: Turn, owner: Answer, thief: Answer) -> Round:
        _, tab, at_thief = self._cast(turn)
        pairs = list(dict.fromkeys([*(_pairs([thief]) if turn.thief_refreshes else ()), turn.stolen, turn.shared]))
        codes, life = await asyncio.gather(
            refresh_codes(self._watchers, pairs), self._longest_life(pairs, since=owner.answered_at)
        )
        tries = [] if turn.thief_refreshes else [thief.code]
        tries.append((await _end_others(at_thief, pairs[0], agent=THIEF)).code)
        is_answered_well = turn.is_right(owner) and thief.code in turn.thief_may_hear
        goes_on = is_answered_well and turn.stays_signed_in
        return Round(
            turn=turn,
            owner=owner,
            thief=thief,
            is_answered_well=is_answered_well,
            is_thief_first=thief.code not in ENDED,
            gained=[pair for pair in pairs if pair != turn.shared],
            tries=tries,
            tabs=[await _refresh(tab, owner.pair, agent=OWNER)] if goes_on else [],
            end=End(pairs=pairs, refresh_codes=codes, life=life),
        )

    async def _longest_life(self, pairs: Sequence[Pair], *, since: float) -> float:
        return max(await asyncio.gather(*(life_after(self._watchers, pair.access, since=since) for pair in pairs)))

    async def rounds(self) -> list[Round]:
        """Return all, once there is nothing left to watch."""
        return [*self._seen, *await asyncio.gather(*self._under_way)]

    async def _is_rotated_by_thief(self, session: Pair) -> bool:
        by = sa.select(sessions.c.rotated_agent).where(sessions.c.id == session.session_id)
        (row,) = await rows_of(self._auth, by)
        return bool(row.rotated_agent == Client.of(address=None, user_agent=THIEF).agent)

    async def aftermath(self, seen: Sequence[Round]) -> Aftermath:
        """Read what is on record, and show every access token to every worker once more."""
        dead = [pair for each in seen if each.end for pair in each.end.pairs]
        living = [each.lives_on for each in seen if each.lives_on]
        ended = await rows_of(self._auth, sa.select(sessions.c.id, sessions.c.revoked_reason))
        return Aftermath(
            reasons={row.id: row.revoked_reason for row in ended},
            repeated=await self._events(RefreshRepeatedElsewhere.name),
            reused=await self._events(RefreshTokenReused.name),
            dead=await self._codes(dead),
            living=await self._codes(living),
        )

    async def _events(self, name: str) -> Counter[tuple[UUID, str]]:
        found = await rows_of(self._auth, sa.select(audit.c.session_id, audit.c.user_agent).where(audit.c.fact == name))
        return Counter((row.session_id, row.user_agent) for row in found)

    async def _codes(self, pairs: Sequence[Pair]) -> Counter[str]:
        heard = [await codes_heard(self._watchers, "GET", DASHBOARD, token=pair.access) for pair in pairs]
        return Counter(code for codes in heard for code in codes)


async def _after(seconds: float, asking: Coroutine[None, None, Answer]) -> Answer:
    if seconds:
        await asyncio.sleep(seconds)
    return await asking


async def _refresh(visitor: Visitor, pair: Pair, *, agent: str, door: Door = Door.COOKIES) -> Answer:
    match door:
        case Door.COOKIES:
            return await visitor.ask("POST", REFRESH, cookies=pair.as_cookies, agent=agent)
        case Door.HEADER:
            return await visitor.ask("POST", REFRESH, token=pair.refresh, agent=agent)
        case Door.FORM:
            form = {"grant_type": "refresh_token", "refresh_token": pair.refresh}
            return await visitor.ask("POST", TOKEN, form=form, agent=agent)


async def _confirm(visitor: Visitor, pair: Pair, *, is_bearer: bool = False) -> Answer:
    body = {"password": PASSWORD}
    if is_bearer:
        return await visitor.ask("POST", CONFIRM, token=pair.access, agent=OWNER, body=body)
    return await visitor.ask("POST", CONFIRM, cookies=pair.as_cookies, agent=OWNER, body=body)


async def _end(visitor: Visitor, turn: Turn) -> Answer:
    """End the shared session, as the round's number says."""
    held, who = turn.shared.as_cookies, credentials(turn.email)
    match turn.case, turn.is_other_way:
        case Case.CHANGES_PASSWORD, is_bearer:
            body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
            if is_bearer:
                return await visitor.ask("POST", PASSWORD_CHANGE, token=turn.shared.access, agent=OWNER, body=body)
            return await visitor.ask("POST", PASSWORD_CHANGE, cookies=held, agent=OWNER, body=body)
        case Case.SIGNS_OUT, is_page:
            return await visitor.ask("POST", SIGN_OUT if is_page else LOGOUT, cookies=held, agent=OWNER)
        case Case.COMES_LATE, confirms:
            return await (_confirm(visitor, turn.shared) if confirms else _refresh(visitor, turn.shared, agent=OWNER))
        case _, True:
            return await visitor.ask("POST", SIGN_IN, cookies=held, agent=OWNER, form=who)
        case _:
            return await visitor.ask("POST", LOGIN, cookies=held, agent=OWNER, body=who)


async def _end_others(visitor: Visitor, pair: Pair, *, agent: str) -> Answer:
    return await visitor.ask("DELETE", SESSIONS, token=pair.access, agent=agent)


def _pairs(answers: Sequence[Answer]) -> list[Pair]:
    return [answer.pair for answer in answers if answer.is_success]


def _figures(seen: Sequence[Round], aftermath: Aftermath, *, within: float) -> list[Figure]:
    return [
        *_at_the_same_time(seen),
        *_nothing_gained(seen),
        *(_ended(case, seen, within=within) for case in _CASES if case is not Case.CONFIRMS),
        *_on_record(seen, aftermath),
        _in_the_end(seen, aftermath),
    ]


def _at_the_same_time(seen: Sequence[Round]) -> list[Figure]:
    overlapping = sum(each.has_overlapped for each in seen)
    thief_first = sum(each.is_thief_first for each in seen)
    answered = sum(each.is_answered_well for each in seen)
    tabs = [tab for each in seen for tab in each.tabs]
    signed_out = sum(not tab.is_success for tab in tabs)
    due = sum(2 if each.turn.case is Case.CONFIRMS else each.turn.stays_signed_in for each in seen)
    return [
        Figure(
            promise="(owner and thief act at the same time, at different workers)",
            seen=f"{overlapping} of {len(seen)} overlapped; the thief was first {thief_first} times, the owner "
            f"{len(seen) - thief_first}",
            is_kept=overlapping > len(seen) / 4,
        ),
        Figure(
            promise="what the owner asks for is done; the thief's refresh gets 200 or `session_ended`",
            seen=f"{answered} of {len(seen)}",
            is_kept=answered == len(seen),
        ),
        Figure(
            promise="honest tabs are not signed out",
            seen=f"{signed_out} of {due} were",
            is_kept=signed_out == 0 and len(tabs) == due,
        ),
    ]


def _nothing_gained(seen: Sequence[Round]) -> list[Figure]:
    tokens = sum(len(each.gained) * 2 for each in seen)
    fresh = sum(each.fresh_tokens for each in seen)
    confirming = [each for each in seen if each.turn.case is Case.CONFIRMS]
    proven = sum(
        each.lives_on is not None and min(each.lives_on.auth_times) > max(each.turn.shared.auth_times)
        for each in confirming
    )
    tries = Counter(code for each in seen for code in each.tries)
    let_through = tries.total() - tries[_NOT_FRESH] - tries["session_ended"]
    owners = sum(each.owners_try == "204" for each in confirming)
    return [
        Figure(
            promise="the thief never holds a token with a proof that was given after the theft",
            seen=f"{fresh} of {tokens} tokens issued to the thief; the owner's say so in {proven} of {len(confirming)}",
            is_kept=fresh == 0 and tokens > 0 and proven == len(confirming),
        ),
        Figure(
            promise="the thief never ends the owner's other sessions (`DELETE /sessions`)",
            seen=f"{let_through} of {tries.total()} tries succeeded, {tries[_NOT_FRESH]} were refused for want of a "
            f"fresh proof; with the one just given the owner's own did, {owners} of {len(confirming)}",
            is_kept=let_through == 0 and tries[_NOT_FRESH] >= 2 * len(confirming) and owners == len(confirming),
        ),
    ]


def _ended(case: Case, seen: Sequence[Round], *, within: float) -> Figure:
    of_case = [each for each in seen if each.turn.case is case]
    ends = [each.end for each in of_case if each.end]
    first = sum(each.is_thief_first for each in of_case)
    dead = sum(end.refresh_codes == ENDED and end.life <= within and math.isfinite(end.life) for end in ends)
    pairs, life = sum(len(end.pairs) for end in ends), max((end.life for end in ends), default=math.inf)
    return Figure(
        promise=f"after {case} nothing from before refreshes, and no worker takes it for more than {within:.0f} s",
        seen=f"dead in {dead} of {len(ends)}, the thief was first in {first}; {pairs} pairs, access taken for "
        f"{life:.2f} s at most",
        is_kept=dead == len(ends) > 0,
    )


def _on_record(seen: Sequence[Round], aftermath: Aftermath) -> list[Figure]:
    late = [each.turn for each in seen if each.turn.case is Case.COMES_LATE]
    revealed = Counter((turn.shared.session_id, OWNER) for turn in late)
    confirmed = sum(turn.is_other_way for turn in late)
    repeats = Counter(
        {(each.turn.shared.session_id, who): count for each in seen for who, count in each.repeats.items()}
    )
    return [
        Figure(
            promise="a theft older than the grace is revealed by the owner's refresh or confirmation: one event each",
            seen=f"{(revealed & aftermath.reused).total()} of {len(late)}, {confirmed} of them by a confirmation; "
            f"{(aftermath.reused - revealed).total()} other events",
            is_kept=aftermath.reused == revealed,
        ),
        Figure(
            promise="each repeat from another User-Agent is recorded as `session.refresh_repeated_elsewhere`",
            seen=f"{(repeats & aftermath.repeated).total()} of {repeats.total()}; "
            f"{(aftermath.repeated - repeats).total()} other events",
            is_kept=aftermath.repeated == repeats,
        ),
    ]


def _in_the_end(seen: Sequence[Round], aftermath: Aftermath) -> Figure:
    right = sum(aftermath.reasons[each.turn.shared.session_id] == _REASONS[each.turn.case] for each in seen)
    return Figure(
        promise="at the end each shared session's row says why it has ended; its tokens are refused, the owner's taken",
        seen=f"{right} of {len(seen)}; {dict(aftermath.dead)}, {dict(aftermath.living)}",
        is_kept=right == len(seen) and set(aftermath.dead) == ENDED and set(aftermath.living) == {"200"},
    )


if __name__ == "__main__":
    sys.exit(main(drill, rounds=200))
