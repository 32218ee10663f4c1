"""Sign-out and refresh of one session at the same instant, on different workers: sign-out wins, whichever was first.

    .venv/bin/python drills/logout_against_refresh.py [--rounds N] [--database sqlite|postgresql]

Once both are answered no worker takes any token for a refresh, not even the ones that the refresh was answered with;
a second later none takes them for the guarded route, and none ever does again.
"""

import asyncio
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from drills.ground import Figure, Says, main, serving
from drills.visitors import (
    DASHBOARD,
    LOGOUT,
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
from latchstring.core.sessions.tables import sessions
from tests.support.process import ServerProcess

MOST_TIMES = 10
"""So many times the rounds asked for, where a busy machine lets the two overlap too rarely."""
_LEADS = (0.0, 0.001, 0.0, 0.004, 0.0005, 0.0, 0.016, 0.002, 0.008)
"""How long one waits after the other began, in seconds: nine, so that each meets every pair of workers.

Every third is none, so that the two overlap however busy the machine is and however long it then sleeps.
"""


@dataclass
class Tried:
    """What was produced: both orders, and both requests under way at the same time."""

    rounds: int = 0
    refreshed_first: int = 0
    overlapping: int = 0

    def note(self, refreshed: Answer, signed_out: Answer) -> None:
        """Count one round."""
        begun = max(refreshed.sent_at, signed_out.sent_at)
        self.rounds += 1
        self.refreshed_first += refreshed.is_success
        self.overlapping += begun < min(refreshed.answered_at, signed_out.answered_at)

    @property
    def is_enough(self) -> bool:
        """Whether the promise was put to the test."""
        return 0 < self.refreshed_first < self.rounds and self.overlapping > self.rounds / 4


@dataclass(frozen=True)
class Round:
    """What both heard, and what became of every token."""

    refreshed: Answer
    signed_out: Answer
    pairs: Sequence[Pair]
    refresh_codes: set[str]
    """What every worker answers to each refresh token, right after the two answers."""
    life: float
    """How long after the answer to the sign-out an access token was still taken by any worker."""

    @property
    def is_answered_well(self) -> bool:
        """Whether both heard what they may hear."""
        return self.signed_out.status == 200 and self.refreshed.code in {"200", "session_ended"}

    @property
    def is_dead(self) -> bool:
        """Whether nothing was left alive."""
        return self.refresh_codes == {"session_ended"} and math.isfinite(self.life)


@dataclass(frozen=True)
class Aftermath:
    """When all is over."""

    reasons: Counter[str | None]
    """Why the sessions ended, as their rows say."""
    codes: Counter[str]
    """What the workers answer to every access token there ever was."""


def drill(url: str, *, rounds: int, workers: int = WORKERS) -> list[Figure]:
    """Return what was seen."""
    with serving(url, workers=workers) as server:
        seen, tried, aftermath = asyncio.run(_rounds(server, url, rounds=rounds, workers=workers))
    return _figures(seen, tried, aftermath)


async def _rounds(
    server: ServerProcess, url: str, *, rounds: int, workers: int
) -> tuple[list[Round], Tried, Aftermath]:
    async with crowd(server, each=3, workers=workers) as rows, operator(url) as auth:
        watchers = [row[0] for row in rows]
        under_way: list[asyncio.Task[Round]] = []
        tried = Tried()
        for number in range(MOST_TIMES * rounds):
            if number >= rounds and tried.is_enough:
                break
            refresher, leaver = rows[number % workers][1], rows[number // workers % workers][2]
            pair = await refresher.registered(f"visitor{number}@example.com")
            lead = _LEADS[number // 2 % len(_LEADS)]
            shown = pair.access if number // 4 % 2 else pair.refresh
            refreshed, signed_out = await asyncio.gather(
                _after(lead * (number % 2), refresher, REFRESH, pair.refresh),
                _after(lead * (1 - number % 2), leaver, LOGOUT, shown),
            )
            tried.note(refreshed, signed_out)
            under_way.append(asyncio.create_task(_watch(watchers, pair, refreshed, signed_out)))
            await asyncio.sleep(0)
        seen = await asyncio.gather(*under_way)
        heard = [
            await codes_heard(watchers, "GET", DASHBOARD, token=pair.access) for each in seen for pair in each.pairs
        ]
        ended = await rows_of(auth, sa.select(sessions.c.revoked_reason))
        return (
            seen,
            tried,
            Aftermath(
                reasons=Counter(row.revoked_reason for row in ended),
                codes=Counter(code for codes in heard for code in codes),
            ),
        )


async def _after(seconds: float, visitor: Visitor, path: str, token: str) -> Answer:
    if seconds:
        await asyncio.sleep(seconds)
    return await visitor.ask("POST", path, token=token)


async def _watch(watchers: Sequence[Visitor], old: Pair, refreshed: Answer, signed_out: Answer) -> Round:
    # The newer first: shown after a copy, it would be refused for the copy's sake and not for the sign-out's.
    pairs = [*([refreshed.pair] if refreshed.is_success else []), old]
    codes = [await codes_heard(watchers, "POST", REFRESH, token=pair.refresh) for pair in pairs]
    lives = [await life_after(watchers, pair.access, since=signed_out.answered_at) for pair in pairs]
    return Round(
        refreshed=refreshed, signed_out=signed_out, pairs=pairs, refresh_codes=set().union(*codes), life=max(lives)
    )


def _figures(seen: Sequence[Round], tried: Tried, aftermath: Aftermath) -> list[Figure]:
    answered = sum(each.is_answered_well for each in seen)
    dead = sum(each.is_dead for each in seen)
    tokens = sum(len(each.pairs) for each in seen)
    return [
        Figure(
            promise="sign-out is always answered with 200; the refresh with 200 or `session_ended`",
            seen=f"{answered} of {len(seen)}",
            is_kept=answered == len(seen),
        ),
        Figure(
            promise="(both orders were tried, and the two were under way at the same time)",
            seen=f"the refresh was first {tried.refreshed_first} times, the sign-out "
            f"{tried.rounds - tried.refreshed_first}; {tried.overlapping} overlapped",
            is_kept=tried.is_enough,
            says=Says.CONDITION,
        ),
        Figure(
            promise="old tokens and new: none refreshes any more, and soon no worker takes one",
            seen=f"dead in {dead} of {len(seen)}; {tokens} pairs",
            is_kept=dead == len(seen),
        ),
        soon_refused([each.life for each in seen]),
        Figure(
            promise="at the end every session is ended by its sign-out, and every token still refused",
            seen=f"{dict(aftermath.reasons)}, {dict(aftermath.codes)}",
            is_kept=aftermath.reasons == {"logout": len(seen)} and aftermath.codes == {"session_ended": tokens},
        ),
    ]


if __name__ == "__main__":
    sys.exit(main(drill, rounds=200))
