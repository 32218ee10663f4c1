"""Two instances on one database, their clocks ten minutes apart: a sign-out at one ends what the other has issued.

    .venv/bin/python drills/skew.py [--rounds N] [--database sqlite|postgresql]

Each round creates and refreshes a session at one instance, and signs it out at the other: by its access token, its
refresh token, or both, of either generation, at `/api/auth/logout` and at the page. To the one that is behind they come
from the future; to the one that is ahead they are old, or have expired. It is done with one clock ahead of the other,
and behind, and in both directions.

Then the instance ahead refreshes, and the token it has replaced is shown at the other: that is no theft.
"""

import asyncio
import math
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from drills import skewed
from drills.ground import Figure, main, serving
from drills.visitors import (
    CONFIRM,
    DASHBOARD,
    ENDED,
    LOGOUT,
    REFRESH,
    SIGN_OUT,
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
from latchstring.core.sessions.tables import sessions
from tests.support.process import ServerProcess
from tests.support.service import PASSWORD

_REFUSALS = frozenset({"session_ended", "invalid_token", "token_expired"})
"""What an instance may say of a token that comes from the future, or has expired, where the other has issued it."""


@dataclass(frozen=True)
class Skew:
    """How far the second instance's clock is off, and how long access tokens live."""

    minutes: int
    access_minutes: int

    @property
    def variables(self) -> Mapping[str, str]:
        """The settings of both instances."""
        return {"LATCHSTRING_ACCESS_TOKEN_EXPIRE_MINUTES": str(self.access_minutes)}


AHEAD = Skew(minutes=10, access_minutes=15)
BEHIND = Skew(minutes=-10, access_minutes=5)
"""Its access tokens have expired before the other instance sees them, and live on here."""


@dataclass(frozen=True)
class Instance:
    """A server, and who comes to it: on each worker a watcher, and one more."""

    name: str
    rows: Sequence[Sequence[Visitor]]

    @property
    def watchers(self) -> list[Visitor]:
        """One on each worker."""
        return [row[0] for row in self.rows]

    def visitor(self, number: int) -> Visitor:
        """Return one who is not a watcher, another each time."""
        return self.rows[number % len(self.rows)][1]


@dataclass(frozen=True)
class SignOut:
    """What a sign-out was answered, and what became of the session."""

    pairs: Sequence[Pair]
    answer: Answer
    issuer_codes: set[str]
    """What the workers that issued them answer to the refresh tokens, right after the sign-out."""
    other_codes: set[str]
    """The same of the workers at which it was signed out."""
    life: float
    """How long after the sign-out's answer an access token was still taken by any worker of either."""

    @property
    def is_dead(self) -> bool:
        """Whether nothing of it is taken anywhere."""
        return self.issuer_codes == ENDED and self.other_codes <= _REFUSALS and math.isfinite(self.life)


@dataclass(frozen=True)
class Replaced:
    """A token that the instance ahead has replaced, shown at the one behind."""

    newest: Pair
    shown: Answer
    went_on: Answer
    """The owner's next refresh, at the instance ahead."""

    @property
    def is_refused_without_harm(self) -> bool:
        """Whether it was refused, and the session lives."""
        return (self.shown.status, self.shown.code, self.went_on.status) == (401, "invalid_token", 200)


def drill(
    url: str,
    *,
    rounds: int,
    workers: int = WORKERS,
    skews: Sequence[Skew] = (AHEAD, BEHIND),
    within: float = WITHIN_SECONDS,
) -> list[Figure]:
    """Return what was seen; each instance has so many workers, and takes no token longer than `within`."""
    figures: list[Figure] = []
    for skew in skews:
        wrong = {**skew.variables, skewed.MINUTES_VARIABLE: str(skew.minutes)}
        with (
            serving(url, workers=workers, variables=skew.variables) as honest,
            serving(url, workers=workers, variables=wrong, program=skewed.main) as other,
        ):
            seeing = _rounds(url, (honest, other), skew, rounds=rounds, workers=workers, within=within)
            figures += asyncio.run(seeing)
    return figures


async def _rounds(
    url: str, servers: tuple[ServerProcess, ServerProcess], skew: Skew, *, rounds: int, workers: int, within: float
) -> list[Figure]:
    async with (
        crowd(servers[0], each=2, workers=workers) as honest_rows,
        crowd(servers[1], each=2, workers=workers) as other_rows,
        operator(url) as auth,
    ):
        honest = Instance("an honest clock", honest_rows)
        other = Instance(f"one {abs(skew.minutes)} min {'ahead' if skew.minutes > 0 else 'behind'}", other_rows)
        await _assert_minutes_off(other, skew)
        behind, ahead = (honest, other) if skew.minutes > 0 else (other, honest)
        return [
            await _signed_out(auth, honest, other, rounds=rounds, within=within),
            await _signed_out(auth, other, honest, rounds=rounds, within=within),
            await _replaced(auth, behind, ahead, rounds=rounds),
        ]


async def _assert_minutes_off(instance: Instance, skew: Skew) -> None:
    seen = ((await _registered(instance, 0)).auth_times[0] - time.time()) / 60
    assert abs(seen - skew.minutes) < 2, f"the clock that should be {skew.minutes} minutes off is {seen}"


async def _registered(instance: Instance, number: int) -> Pair:
    return await instance.visitor(number).registered(f"{secrets.token_hex(8)}@example.com")


async def _signed_out(auth: Auth, issuer: Instance, other: Instance, *, rounds: int, within: float) -> Figure:
    under_way: list[asyncio.Task[SignOut]] = []
    for number in range(rounds):
        first = await _registered(issuer, number)
        refreshed = await issuer.visitor(number + 1).ask("POST", REFRESH, token=first.refresh)
        assert refreshed.status == 200, refreshed.body
        assert await codes_heard(issuer.watchers, "GET", DASHBOARD, token=refreshed.pair.access) == {"200"}
        shown = first if number // 6 % 2 else refreshed.pair
        answer = await _sign_out(other.visitor(number // 2), shown, number)
        watching = _watch(issuer, other, [refreshed.pair, first], answer)
        under_way.append(asyncio.create_task(watching))
        await asyncio.sleep(0)
    seen = await asyncio.gather(*under_way)
    answered = [each for each in seen if each.answer.status in {200, 303}]
    revoked = await _session_ids(auth, sessions.c.revoked_reason == "logout")
    ended = sum(each.is_dead and each.pairs[0].session_id in revoked for each in answered)
    life = max(each.life for each in seen)
    return Figure(
        promise=f"issued by {issuer.name}, signed out at {other.name}: the session has ended, no token of it is taken "
        f"for more than {within:.0f} s",
        seen=f"{ended} of {len(answered)} sign-outs that were answered with 200 or 303, of {rounds}; access taken for "
        f"{life:.2f} s at most",
        is_kept=ended == len(answered) == rounds and life <= within,
    )


async def _sign_out(visitor: Visitor, pair: Pair, number: int) -> Answer:
    """Show one of the tokens, or both, in the header or as cookies, to the route or to the page."""
    names = (("access_token",), ("refresh_token",), ("access_token", "refresh_token"))[number % 3]
    cookies = {name: value for name, value in pair.as_cookies.items() if name in names}
    if number // 3 % 2:
        return await visitor.ask("POST", SIGN_OUT, cookies=cookies)
    if number // 12 % 2:
        return await visitor.ask("POST", LOGOUT, token=cookies.pop(names[0]), cookies=cookies)
    return await visitor.ask("POST", LOGOUT, cookies=cookies)


async def _watch(issuer: Instance, other: Instance, pairs: Sequence[Pair], answer: Answer) -> SignOut:
    watched = ((issuer.watchers, ENDED), (other.watchers, _REFUSALS))
    codes, lives = await asyncio.gather(
        asyncio.gather(*(refresh_codes(watchers, pairs) for watchers, _ in watched)),
        asyncio.gather(
            *(
                life_after(watchers, pair.access, since=answer.answered_at, refusals=refusals)
                for watchers, refusals in watched
                for pair in pairs
            )
        ),
    )
    return SignOut(pairs, answer, issuer_codes=codes[0], other_codes=codes[1], life=max(lives))


async def _replaced(auth: Auth, behind: Instance, ahead: Instance, *, rounds: int) -> Figure:
    seen: list[Replaced] = []
    for number in range(rounds):
        first = await _registered(behind, number)
        rotated = await ahead.visitor(number).ask("POST", REFRESH, token=first.refresh)
        assert rotated.status == 200, rotated.body
        shown = await _show(behind.visitor(number // 2), first, number)
        went_on = await ahead.visitor(number + 1).ask("POST", REFRESH, token=rotated.pair.refresh)
        seen.append(Replaced(rotated.pair, shown, went_on))
    living = await _session_ids(auth, sessions.c.revoked_at.is_(None) & (sessions.c.repeats == 0))
    harmless = sum(each.is_refused_without_harm and each.newest.session_id in living for each in seen)
    return Figure(
        promise=f"issued by {behind.name}, refreshed at {ahead.name}, shown once more at the first: 401 "
        "`invalid_token`, and the session lives",
        seen=f"{harmless} of {rounds}",
        is_kept=harmless == rounds,
    )


async def _show(visitor: Visitor, pair: Pair, number: int) -> Answer:
    match number % 3:
        case 0:
            return await visitor.ask("POST", REFRESH, cookies=pair.as_cookies)
        case 1:
            return await visitor.ask("POST", REFRESH, token=pair.refresh)
        case _:
            return await visitor.ask("POST", CONFIRM, cookies=pair.as_cookies, body={"password": PASSWORD})


async def _session_ids(auth: Auth, condition: sa.ColumnElement[bool]) -> set[object]:
    return {row.id for row in await rows_of(auth, sa.select(sessions.c.id).where(condition))}


if __name__ == "__main__":
    sys.exit(main(drill, rounds=200))
