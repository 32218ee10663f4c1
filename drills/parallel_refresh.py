"""Fifty refreshes of one token at the same instant, on four workers, round after round from the last successor.

    .venv/bin/python drills/parallel_refresh.py [--rounds N] [--database sqlite|postgresql]

All fifty hear of one and the same successor, the session moves by one generation and is never lost, and afterwards
every token but the newest two is worth nothing. On SQLite, which has one writer, half of the rounds are run beside
eight others who register without pause: a refresh may then be told to try again (503 with Retry-After), and no worse.
"""

import asyncio
import secrets
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import sqlalchemy as sa

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from drills.ground import Figure, main, percentile, serving
from drills.visitors import (
    DASHBOARD,
    REFRESH,
    REGISTER,
    WORKERS,
    Answer,
    Pair,
    Visitor,
    codes_heard,
    crowd,
    operator,
    rows_of,
)
from latchstring import Auth
from latchstring.core.sessions.tables import sessions
from tests.support.process import ServerProcess
from tests.support.service import registration

AT_ONCE = 50
BUSY = 8
"""Who register without pause, beside half of the rounds on SQLite."""


@dataclass(frozen=True)
class Round:
    """What fifty heard, and what the database says afterwards."""

    answers: Sequence[Answer]
    successors: frozenset[Pair]
    living: Sequence[int]
    """The generation of each session the user has; one session, if all is well."""
    expected: int
    is_busy: bool = False
    """Others were writing meanwhile, to a database with one writer."""

    @property
    def moved_by_one(self) -> bool:
        """Whether the one successor is the next generation, and the only one alive; nothing moved if all must wait."""
        if self.all_wait:
            return list(self.living) == [self.expected - 1]
        return {pair.generation for pair in self.successors} == {self.expected} and list(self.living) == [self.expected]

    @property
    def all_wait(self) -> bool:
        """Whether everybody was told to try again."""
        return all(answer.status == 503 and answer.is_told_to_wait for answer in self.answers)

    @property
    def is_as_promised(self) -> bool:
        """Whether everybody heard 200, or, beside other writers, was told to try again."""
        return all(
            answer.status == 200 or (self.is_busy and answer.status == 503 and answer.is_told_to_wait)
            for answer in self.answers
        )

    @property
    def is_lost(self) -> bool:
        """Whether nobody can go on from here."""
        return not self.living or not (self.successors or self.all_wait)


@dataclass(frozen=True)
class Ending:
    """The last token, and all before."""

    last_is_good: bool
    older: Sequence[str]
    """What was heard of each token older than the previous one, the oldest first."""


def drill(url: str, *, rounds: int, workers: int = WORKERS) -> list[Figure]:
    """Return what was seen."""
    with serving(url, workers=workers) as server:
        if url.startswith("postgresql"):
            return _figures(*asyncio.run(_chain(server, url, rounds=rounds, workers=workers)))
        half = max(1, rounds // 2)
        alone = asyncio.run(_chain(server, url, rounds=half, workers=workers))
        busy = asyncio.run(_beside_writers(server, url, rounds=half, workers=workers))
    return [
        *_figures(*alone),
        *(replace(figure, promise=f"{BUSY} writers beside: {figure.promise}") for figure in _figures(*busy)),
    ]


async def _beside_writers(
    server: ServerProcess, url: str, *, rounds: int, workers: int
) -> tuple[Sequence[Round], Sequence[Ending]]:
    writers = [asyncio.create_task(_register_on(server)) for _ in range(BUSY)]
    try:
        return await _chain(server, url, rounds=rounds, workers=workers, is_busy=True)
    finally:
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)


async def _register_on(server: ServerProcess) -> None:
    visitor = await Visitor.of(server)
    try:
        while True:
            await visitor.ask("POST", REGISTER, body=registration(f"{secrets.token_hex(8)}@example.com"))
    finally:
        await visitor.close()


async def _chain(
    server: ServerProcess, url: str, *, rounds: int, workers: int, is_busy: bool = False
) -> tuple[Sequence[Round], Sequence[Ending]]:
    seen: list[Round] = []
    endings: list[Ending] = []
    history: list[Pair] = []
    async with crowd(server, each=-(-AT_ONCE // workers), workers=workers) as rows, operator(url) as auth:
        tabs = [visitor for column in zip(*rows, strict=True) for visitor in column][:AT_ONCE]
        for number in range(rounds):
            if not history:
                body = registration(f"tabs{number}-{secrets.token_hex(4)}@example.com")
                history.append((await _patient(tabs[0], REGISTER, body=body)).pair)
            seen.append(await _at_once(tabs, history[-1], auth, is_busy=is_busy))
            if seen[-1].is_lost:
                history = []
            elif seen[-1].successors:
                history.append(min(seen[-1].successors))
        if history:
            endings.append(await _end([row[0] for row in rows], history))
    return seen, endings


async def _patient(visitor: Visitor, path: str, *, token: str | None = None, body: object = None) -> Answer:
    """Ask, and try again where that is the answer."""
    while (answer := await visitor.ask("POST", path, token=token, body=body)).status == 503:  # noqa: ASYNC110 -- as it says
        await asyncio.sleep(0.1)
    return answer


async def _at_once(tabs: Sequence[Visitor], current: Pair, auth: Auth, *, is_busy: bool) -> Round:
    answers = await asyncio.gather(*(tab.ask("POST", REFRESH, token=current.refresh) for tab in tabs))
    living = sa.select(sessions.c.generation).where(
        sessions.c.user_id == current.user_id, sessions.c.revoked_at.is_(None)
    )
    return Round(
        answers=answers,
        successors=frozenset(answer.pair for answer in answers if answer.is_success),
        living=[row.generation for row in await rows_of(auth, living)],
        expected=current.generation + 1,
        is_busy=is_busy,
    )


async def _end(watchers: Sequence[Visitor], history: Sequence[Pair]) -> Ending:
    guarded = await codes_heard(watchers, "GET", DASHBOARD, token=history[-1].access)
    refreshed = await _patient(watchers[0], REFRESH, token=history[-1].refresh)
    # The last refresh made one more generation: now the last of the history is the previous token, and stays good.
    older: list[str] = []
    for turn, pair in enumerate(history[:-1]):
        answer = await _patient(watchers[turn % len(watchers)], REFRESH, token=pair.refresh)
        older.append(answer.code)
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
            promise=f"{AT_ONCE} refreshes of one token at once: each is answered with 200"
            + (", or 503 with Retry-After" if any(each.is_busy for each in seen) else ""),
            seen=f"{len(answers)} answers: "
            + ", ".join(f"{count} × {status}" for status, count in sorted(statuses.items()))
            + f"; p50 {percentile(milliseconds, 0.5):.0f} ms, p99 {percentile(milliseconds, 0.99):.0f} ms, "
            f"at most {max(milliseconds):.0f} ms",
            is_kept=all(each.is_as_promised for each in seen),
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
