"""Fifty refreshes of one token at the same instant, on four workers, round after round from the last successor.

    .venv/bin/python drills/parallel_refresh.py [--rounds N] [--database sqlite|postgresql]

All fifty hear of one and the same successor, the session moves by one generation and is never lost, and afterwards
every token but the newest two is worth nothing.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from drills.ground import Figure, main, percentile, serving
from drills.visitors import DASHBOARD, REFRESH, WORKERS, Answer, Pair, Visitor, codes_heard, crowd, operator, rows_of
from latchstring import Auth
from latchstring.core.sessions.tables import sessions
from tests.support.process import ServerProcess

AT_ONCE = 50


@dataclass(frozen=True)
class Round:
    """What fifty heard, and what the database says afterwards."""

    answers: Sequence[Answer]
    successors: frozenset[Pair]
    living: Sequence[int]
    """The generation of each session the user has; one session, if all is well."""
    expected: int

    @property
    def moved_by_one(self) -> bool:
        """Whether the one successor is the next generation, and the only one alive."""
        return {pair.generation for pair in self.successors} == {self.expected} and list(self.living) == [self.expected]

    @property
    def is_lost(self) -> bool:
        """Whether nobody can go on from here."""
        return not self.successors or not self.living


@dataclass(frozen=True)
class Ending:
    """The last token, and all before."""

    last_is_good: bool
    older: Sequence[str]
    """What was heard of each token older than the previous one, the oldest first."""


def drill(url: str, *, rounds: int, workers: int = WORKERS) -> list[Figure]:
    """Return what was seen."""
    with serving(url, workers=workers) as server:
        seen, endings = asyncio.run(_chain(server, url, rounds=rounds, workers=workers))
    return _figures(seen, endings)


async def _chain(
    server: ServerProcess, url: str, *, rounds: int, workers: int
) -> tuple[Sequence[Round], Sequence[Ending]]:
    seen: list[Round] = []
    endings: list[Ending] = []
    history: list[Pair] = []
    async with crowd(server, each=-(-AT_ONCE // workers), workers=workers) as rows, operator(url) as auth:
        tabs = [visitor for column in zip(*rows, strict=True) for visitor in column][:AT_ONCE]
        for number in range(rounds):
            if not history:
                history.append(await tabs[0].registered(f"tabs{number}@example.com"))
            seen.append(await _at_once(tabs, history[-1], auth))
            if seen[-1].is_lost:
                history = []
            else:
                history.append(min(seen[-1].successors))
        if history:
            endings.append(await _end([row[0] for row in rows], history))
    return seen, endings


async def _at_once(tabs: Sequence[Visitor], current: Pair, auth: Auth) -> Round:
    answers = await asyncio.gather(*(tab.ask("POST", REFRESH, token=current.refresh) for tab in tabs))
    living = sa.select(sessions.c.generation).where(
        sessions.c.user_id == current.user_id, sessions.c.revoked_at.is_(None)
    )
    return Round(
        answers=answers,
        successors=frozenset(answer.pair for answer in answers if answer.is_success),
        living=[row.generation for row in await rows_of(auth, living)],
        expected=current.generation + 1,
    )


async def _end(watchers: Sequence[Visitor], history: Sequence[Pair]) -> Ending:
    guarded = await codes_heard(watchers, "GET", DASHBOARD, token=history[-1].access)
    refreshed = await watchers[0].ask("POST", REFRESH, token=history[-1].refresh)
    # The last refresh made one more generation: now the last of the history is the previous token, and stays good.
    older = [
        (await watchers[turn % len(watchers)].ask("POST", REFRESH, token=pair.refresh)).code
        for turn, pair in enumerate(history[:-1])
    ]
    return Ending(last_is_good=guarded == {"200"} and refreshed.status == 200, older=older)


def _figures(seen: Sequence[Round], endings: Sequence[Ending]) -> list[Figure]:
    answers = [answer for each in seen for answer in each.answers]
    statuses = Counter(answer.status for answer in answers)
    milliseconds = [answer.seconds * 1000 for answer in answers]
    most = max(len(each.successors) for each in seen)
    moved = sum(each.moved_by_one for each in seen)
    lost = sum(each.is_lost for each in seen)
    refused = [
        ending.older == ["refresh_token_reused"] + ["session_ended"] * (len(ending.older) - 1) for ending in endings
    ]
    return [
        Figure(
            promise=f"{AT_ONCE} refreshes of one token at once: each is answered with 200",
            seen=f"{len(answers)} answers: "
            + ", ".join(f"{count} × {status}" for status, count in sorted(statuses.items()))
            + f"; p50 {percentile(milliseconds, 0.5):.0f} ms, p99 {percentile(milliseconds, 0.99):.0f} ms",
            is_kept=statuses.keys() == {200},
        ),
        Figure(
            promise="all of a round get the very same successor",
            seen=f"{most} distinct at most",
            is_kept=most == 1,
        ),
        Figure(
            promise="a round moves the session by one generation, and that one alone lives in the database",
            seen=f"{moved} of {len(seen)} rounds",
            is_kept=moved == len(seen),
        ),
        Figure(
            promise="no session is lost: the last token opens the guarded route on every worker, and refreshes",
            seen=f"{lost} lost, last token {'good' if all(ending.last_is_good for ending in endings) else 'refused'}",
            is_kept=lost == 0 and bool(endings) and all(ending.last_is_good for ending in endings),
        ),
        Figure(
            promise="tokens older than the previous one are refused, and the first of them ends the session",
            seen=f"{sum(len(ending.older) for ending in endings)} shown: "
            + ", ".join(f"{count} × {code}" for code, count in Counter(c for e in endings for c in e.older).items()),
            is_kept=bool(refused) and all(refused),
        ),
    ]


if __name__ == "__main__":
    sys.exit(main(drill, rounds=200))
