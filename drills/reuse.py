"""A copied refresh token is shown again: the session ends everywhere, and the theft is on record exactly once.

    .venv/bin/python drills/reuse.py [--rounds N] [--database sqlite|postgresql]

Four ways to be late, so many sessions each: after the grace; after the successor was used, be it within the grace; with
no grace, after three rotations in one second; after the server was stopped and started. Every other copy is shown by
eight at once, spread over the workers.
"""

import asyncio
import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from drills.ground import Figure, Says, main, serving
from drills.visitors import (
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
from latchstring.foundation.audit import audit
from latchstring.foundation.events import RefreshTokenReused
from tests.support.process import ServerProcess

COPIES = 8
GRACE_SECONDS = 1.0


@dataclass(frozen=True)
class Held:
    """A session that was rotated: all its tokens, and when the rotations were under way."""

    pairs: Sequence[Pair]
    began_at: float
    rotated_at: float


@dataclass(frozen=True)
class Theft:
    """What became of a copy that was shown."""

    case: str
    held: Held
    shown: Sequence[Answer]
    newest_refresh: set[str]
    """What the owner's refresh token is answered, on each worker."""
    life: float
    """How long the owner's access token was still taken by any worker."""

    @property
    def is_found(self) -> bool:
        """Whether the session ended as it should; of several copies at once, some may come when it has ended."""
        heard = {answer.code for answer in self.shown}
        return (
            {answer.status for answer in self.shown} == {401}
            and "refresh_token_reused" in heard
            and heard <= {"refresh_token_reused", "session_ended"}
            and self.newest_refresh == {"session_ended"}
            and math.isfinite(self.life)
        )

    @property
    def at_least(self) -> float:
        """How long after the last rotation the first copy was shown."""
        return min(answer.sent_at for answer in self.shown) - self.held.rotated_at

    @property
    def at_most(self) -> float:
        """How long after the first rotation began the last copy was answered."""
        return max(answer.answered_at for answer in self.shown) - self.held.began_at

    @property
    def is_timely(self) -> bool:
        """Whether it was shown when the case says, which a busy machine may miss."""
        return {
            "after the grace": self.at_least > GRACE_SECONDS,
            "after a restart": self.at_least > GRACE_SECONDS,
            "within the grace, the successor used": self.at_most < GRACE_SECONDS,
            "no grace, three rotations in a second": self.at_most < 1,
        }[self.case]


def drill(url: str, *, rounds: int, workers: int = WORKERS, restarts: bool = True) -> list[Figure]:
    """Return what was seen; with one server alone, of what needs no second one."""
    without_grace: list[Theft] = []
    before_the_stop: list[Held] = []
    if restarts:
        without_grace, before_the_stop = _before_the_restart(url, rounds=rounds, workers=workers)
    # The server that comes back has a longer grace than the one that rotated: not even that forgives.
    with serving(url, workers=workers, variables={"LATCHSTRING_REFRESH_GRACE_SECONDS": str(GRACE_SECONDS)}) as server:
        late = asyncio.run(_with_grace(server, before_the_stop, rounds=rounds, workers=workers))
    thefts = [*late, *without_grace]
    return [*_by_case(thefts), asyncio.run(_on_record(url, thefts))]


def _before_the_restart(url: str, *, rounds: int, workers: int) -> tuple[list[Theft], list[Held]]:
    with serving(url, workers=workers, variables={"LATCHSTRING_REFRESH_GRACE_SECONDS": "0"}) as server:
        return asyncio.run(_without_grace(server, rounds=rounds, workers=workers))


async def _without_grace(server: ServerProcess, *, rounds: int, workers: int) -> tuple[list[Theft], list[Held]]:
    async with crowd(server, each=-(-COPIES // workers) + 1, workers=workers) as rows:
        scene = _Scene(rows)
        for number in range(rounds):
            held = await scene.session(f"c{number}@example.com", rotations=3)
            await scene.show("no grace, three rotations in a second", held, copy=number // 2 % 2)
        kept = [
            await scene.session(f"d{number}@example.com", rotations=1 + number // 2 % 2) for number in range(rounds)
        ]
        return await scene.thefts(), kept


async def _with_grace(
    server: ServerProcess, before_the_stop: Sequence[Held], *, rounds: int, workers: int
) -> list[Theft]:
    async with crowd(server, each=-(-COPIES // workers) + 1, workers=workers) as rows:
        scene = _Scene(rows)
        waiting = [await scene.session(f"a{number}@example.com", rotations=1) for number in range(rounds)]
        for held in before_the_stop:
            await _until_after_grace(held)
            await scene.show("after a restart", held, copy=0)
        for number in range(rounds):
            held = await scene.session(f"b{number}@example.com", rotations=2)
            await scene.show("within the grace, the successor used", held, copy=0)
        for held in waiting:
            await _until_after_grace(held)
            await scene.show("after the grace", held, copy=0)
        return await scene.thefts()


async def _until_after_grace(held: Held) -> None:
    await asyncio.sleep(max(held.rotated_at + GRACE_SECONDS * 1.1 - time.monotonic(), 0))


class _Scene:
    """Thieves and owners on every worker, and one watcher on each."""

    def __init__(self, rows: Sequence[Sequence[Visitor]]) -> None:
        self._watchers = [row[0] for row in rows]
        self._visitors: list[Visitor] = [visitor for column in zip(*rows, strict=True) for visitor in column][
            len(rows) :
        ]
        self._turn = 0
        self._under_way: list[asyncio.Task[Theft]] = []

    def _next(self) -> Visitor:
        self._turn += 1
        return self._visitors[self._turn % len(self._visitors)]

    async def session(self, email: str, *, rotations: int) -> Held:
        """Register somebody and refresh so many times, each time on another worker."""
        pairs = [await self._next().registered(email)]
        began_at = time.monotonic()
        for _ in range(rotations):
            answer = await self._next().ask("POST", REFRESH, token=pairs[-1].refresh)
            assert answer.status == 200, answer.body
            pairs.append(answer.pair)
        return Held(pairs=pairs, began_at=began_at, rotated_at=time.monotonic())

    async def show(self, case: str, held: Held, *, copy: int) -> None:
        """Show an older token, by one or, every other time, by many at once; what follows is watched meanwhile."""
        token = held.pairs[copy].refresh
        thieves = self._visitors[:COPIES] if len(self._under_way) % 2 == 0 else [self._next()]
        shown = await asyncio.gather(*(thief.ask("POST", REFRESH, token=token) for thief in thieves))
        self._under_way.append(asyncio.create_task(self._watch(case, held, shown)))

    async def _watch(self, case: str, held: Held, shown: Sequence[Answer]) -> Theft:
        ended_at = min(answer.answered_at for answer in shown)
        newest = held.pairs[-1]
        return Theft(
            case=case,
            held=held,
            shown=shown,
            life=await life_after(self._watchers, newest.access, since=ended_at),
            newest_refresh=await codes_heard(self._watchers, "POST", REFRESH, token=newest.refresh),
        )

    async def thefts(self) -> list[Theft]:
        """Return all, once there is nothing left to watch."""
        return await asyncio.gather(*self._under_way)


def _by_case(thefts: Sequence[Theft]) -> list[Figure]:
    figures = []
    for case in dict.fromkeys(theft.case for theft in thefts):
        of_case = [theft for theft in thefts if theft.case == case]
        found = sum(theft.is_found for theft in of_case)
        at_once = sum(len(theft.shown) == COPIES for theft in of_case)
        first, last = min(theft.at_least for theft in of_case), max(theft.at_most for theft in of_case)
        timely = sum(theft.is_timely for theft in of_case)
        figures.append(
            Figure(
                promise=f"{case}: a copy is refused as reused, and soon no worker takes the session",
                seen=f"{found} of {len(of_case)}, {at_once} by {COPIES} at once",
                is_kept=found == len(of_case),
            )
        )
        figures.append(
            Figure(
                promise=f"(they were shown at that time: {case})",
                seen=f"{timely} of {len(of_case)}, {first:.2f} to {last:.2f} s after the rotation",
                is_kept=timely > 0,
                says=Says.CONDITION,
            )
        )
    return [*figures, soon_refused([theft.life for theft in thefts])]


async def _on_record(url: str, thefts: Sequence[Theft]) -> Figure:
    async with operator(url) as auth:
        reused = sa.select(audit.c.session_id).where(audit.c.fact == RefreshTokenReused.name)
        events = Counter(row.session_id for row in await rows_of(auth, reused))
        ended = sa.select(sessions.c.id).where(sessions.c.revoked_reason == "refresh_reused")
        revoked = {row.id for row in await rows_of(auth, ended)}
    stolen = {theft.held.pairs[-1].session_id for theft in thefts}
    return Figure(
        promise="each theft is one event on record, and the session's row says why it ended",
        seen=f"{events.total()} events, {max(events.values(), default=0)} at most of one session; "
        f"{len(revoked)} ended so; {len(stolen)} copied",
        is_kept=events == Counter(stolen) and revoked == stolen,
    )


if __name__ == "__main__":
    sys.exit(main(drill, rounds=20))
