"""A sign-in whose password is being checked while the ground goes from under it: nothing of it may stay alive.

    .venv/bin/python drills/void_proof.py [--rounds N] [--database sqlite|postgresql]

disabled           the user is disabled by the operator
password changed   the user changes the password in another session, which goes on; the login came with the old one

Hashes cost what they cost as shipped. The end comes at moments spread over the login's whole duration, as measured
first: before it is sent, in the midst of the hash, about the commit, and after the answer.
"""

import asyncio
import functools
import json
import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from drills.ground import Figure, Says, main, serving
from drills.visitors import (
    DASHBOARD,
    LOGIN,
    REFRESH,
    WORKERS,
    Answer,
    Pair,
    Visitor,
    codes_heard,
    crowd,
    life_after,
    operator,
    rows_of,
    soon_refused,
)
from latchstring import Auth
from latchstring.core.sessions.tables import sessions
from latchstring.foundation.events import OPERATOR
from tests.support.process import ServerProcess
from tests.support.service import PASSWORD, credentials

CHANGE = "/api/auth/password/change"
NEW_PASSWORD = "another horse, another battery"

_COST_AS_SHIPPED = {"LATCHSTRING_PASSWORD_HASH_MEMORY_KIB": "19456", "LATCHSTRING_PASSWORD_HASH_PASSES": "2"}
_BEFORE, _AFTER = -1.0, 2.0
_MOMENTS = (_BEFORE, 0.5, _AFTER, 1.2, 0.2, 1.0, 0.7, 1.3, 0.05, 1.1, 0.9, 1.15, 0.4, 1.4, 1.05)
"""When the end is recorded, in durations of a login; more often than not about the login's commit."""
_MEASURED = 5
ORDERS = {"before", "within", "after"}
MOST_TIMES = 10
"""So many times the rounds asked for, where a busy machine misses the moments."""

End = Callable[[Visitor, Pair], Awaitable[Pair | None]]
"""What takes the ground away; by a visitor, who is signed in with these tokens. Returns those that may live then."""


@dataclass(frozen=True)
class Race:
    """A login, and when it was ended."""

    login: Answer
    end_began_at: float
    ended_at: float
    spared: Pair | None

    @property
    def order(self) -> str:
        """When the end came, seen from the login."""
        if self.ended_at <= self.login.sent_at:
            return "before"
        return "after" if self.end_began_at >= self.login.answered_at else "within"


@dataclass(frozen=True)
class Round:
    """A race, and what was left of it."""

    race: Race
    has_only_allowed: bool
    """Whether exactly those sessions live, in the database, that may: as soon as both were answered."""
    refresh_codes: set[str]
    """What every worker answers to each refresh token that had to die."""
    life: float
    """How long an access token that had to die was still taken by any worker."""
    spared_codes: set[str]
    """What every worker answers to the tokens that had to live."""

    @property
    def is_kept(self) -> bool:
        """Whether all that had to die is dead, and all else alive."""
        return (
            self.has_only_allowed
            and self.refresh_codes <= {"session_ended"}
            and math.isfinite(self.life)
            and self.spared_codes <= {"200"}
        )


def drill(url: str, *, rounds: int, workers: int = WORKERS) -> list[Figure]:
    """Return what was seen."""
    with serving(url, workers=workers, variables=_COST_AS_SHIPPED) as server:
        return asyncio.run(_both(server, url, rounds=rounds, workers=workers))


async def _both(server: ServerProcess, url: str, *, rounds: int, workers: int) -> list[Figure]:
    async with crowd(server, each=3, workers=workers) as rows, operator(url) as auth:
        return [
            *await disabled(rows, auth, rounds=rounds),
            *await password_changed(rows, auth, rounds=rounds),
        ]


async def disabled(rows: Sequence[Sequence[Visitor]], auth: Auth, *, rounds: int) -> list[Figure]:
    """Disable the user: neither the login's session may live nor the one there was."""

    async def disable(_elsewhere: Visitor, own: Pair) -> None:  # nothing may live then
        user = await auth.users.disable(own.user_id, source=OPERATOR)
        assert user is not None
        assert user.is_disabled

    return await _mode("disabled", disable, rows, auth, rounds=rounds, spares_own=False)


async def password_changed(rows: Sequence[Sequence[Visitor]], auth: Auth, *, rounds: int) -> list[Figure]:
    """Change the password: the one who changed it has a new session, and it alone lives."""

    async def change(elsewhere: Visitor, own: Pair) -> Pair | None:
        body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
        answer = await elsewhere.ask("POST", CHANGE, token=own.access, body=body)
        assert answer.status == 200, answer.body
        tokens = json.loads(answer.body)
        return Pair(access=tokens["access_token"], refresh=tokens["refresh_token"])

    return await _mode("changed", change, rows, auth, rounds=rounds, spares_own=True)


async def _mode(
    name: str, end: End, rows: Sequence[Sequence[Visitor]], auth: Auth, *, rounds: int, spares_own: bool
) -> list[Figure]:
    watchers = [row[0] for row in rows]
    login_seconds, end_seconds = await _durations(f"measured{{}}@{name}.example.com", end, rows[0])
    under_way: list[asyncio.Task[Round]] = []
    tried: set[str] = set()
    for number in range(MOST_TIMES * rounds):
        if number >= rounds and tried == ORDERS:
            break
        email = f"visitor{number}@{name}.example.com"
        visitor, elsewhere = rows[number % len(rows)][1], rows[number // len(rows) % len(rows)][2]
        own = await elsewhere.registered(email)
        race = await _race(
            functools.partial(visitor.ask, "POST", LOGIN, body=credentials(email)),
            functools.partial(end, elsewhere, own),
            moment=_MOMENTS[number % len(_MOMENTS)],
            login_seconds=login_seconds,
            end_seconds=end_seconds,
        )
        tried.add(race.order)
        under_way.append(asyncio.create_task(_left_over(race, own, watchers, auth)))
    seen = await asyncio.gather(*under_way)
    return _figures(name, seen, login_seconds=login_seconds, spares_own=spares_own)


async def _durations(email: str, end: End, visitors: Sequence[Visitor]) -> tuple[float, float]:
    logins, ends = [], []
    for number in range(_MEASURED):
        own = await visitors[2].registered(email.format(number))
        answer = await visitors[1].ask("POST", LOGIN, body=credentials(email.format(number)))
        assert answer.status == 200, answer.body
        logins.append(answer.seconds)
        began_at = time.monotonic()
        await end(visitors[2], own)
        ends.append(time.monotonic() - began_at)
    return statistics.median(logins), statistics.median(ends)


async def _race(
    login: Callable[[], Awaitable[Answer]],
    end: Callable[[], Awaitable[Pair | None]],
    *,
    moment: float,
    login_seconds: float,
    end_seconds: float,
) -> Race:
    async def login_after(seconds: float) -> Answer:
        await asyncio.sleep(max(seconds, 0))
        return await login()

    async def end_after(seconds: float) -> tuple[float, float, Pair | None]:
        await asyncio.sleep(max(seconds, 0))
        began_at = time.monotonic()
        spared = await end()
        return began_at, time.monotonic(), spared

    if moment == _BEFORE:
        times = await end_after(0)
        return Race(await login(), *times)
    if moment == _AFTER:
        answer = await login()
        return Race(answer, *await end_after(0))
    lead = moment * login_seconds - end_seconds  # what it takes to be recorded at that moment
    answer, times = await asyncio.gather(login_after(-lead), end_after(lead))
    return Race(answer, *times)


async def _left_over(race: Race, own: Pair, watchers: Sequence[Visitor], auth: Auth) -> Round:
    alive = sa.select(sessions.c.id).where(sessions.c.user_id == own.user_id, sessions.c.revoked_at.is_(None))
    living = {row.id for row in await rows_of(auth, alive)}
    opened = [race.login.pair] if race.login.is_success else []
    doomed, spared = [*opened, own], [race.spared] if race.spared else []
    refreshes = [await codes_heard(watchers, "POST", REFRESH, token=pair.refresh) for pair in doomed]
    since = max(race.ended_at, race.login.answered_at)
    lives = [await life_after(watchers, pair.access, since=since) for pair in doomed]
    # Now that every worker knows of the end.
    guarded = [await codes_heard(watchers, "GET", DASHBOARD, token=pair.access) for pair in spared]
    renewed = [await codes_heard(watchers, "POST", REFRESH, token=pair.refresh) for pair in spared]
    return Round(
        race=race,
        has_only_allowed=living == {pair.session_id for pair in spared},
        refresh_codes=set().union(*refreshes),
        life=max(lives, default=0.0),
        spared_codes=set().union(*guarded, *renewed),
    )


def _figures(name: str, seen: Sequence[Round], *, login_seconds: float, spares_own: bool) -> list[Figure]:
    orders = Counter(each.race.order for each in seen)
    let_in = Counter(each.race.order for each in seen if each.race.login.is_success)
    heard = Counter(each.race.login.code for each in seen)
    kept = sum(each.is_kept for each in seen)
    only_allowed = sum(each.has_only_allowed for each in seen)
    return [
        Figure(
            promise=f"({name}: before, within and after a login were tried)",
            seen=", ".join(
                f"{orders[order]} {order} ({let_in[order]} let in)" for order in ("before", "within", "after")
            )
            + f"; a login takes {login_seconds * 1000:.0f} ms",
            is_kept=orders.keys() == ORDERS,
            says=Says.CONDITION,
        ),
        Figure(
            promise=f"{name}: a login that comes after it is refused, one that was answered before it is let in",
            seen=", ".join(f"{count} × {code}" for code, count in sorted(heard.items())),
            is_kept=heard.keys() <= {"200", "invalid_credentials"}
            and let_in["before"] == 0
            and let_in["after"] == orders["after"],
        ),
        Figure(
            promise=f"{name}: once both are answered, "
            + ("the new session is the only one alive" if spares_own else "no session of the user is alive"),
            seen=f"{only_allowed} of {len(seen)}",
            is_kept=only_allowed == len(seen),
        ),
        Figure(
            promise=f"{name}: no token refreshes any more, and soon no worker takes one"
            + ("; those of the new session work" if spares_own else ""),
            seen=f"{kept} of {len(seen)}",
            is_kept=kept == len(seen),
        ),
        soon_refused([each.life for each in seen]),
    ]


if __name__ == "__main__":
    sys.exit(main(drill, rounds=200))
