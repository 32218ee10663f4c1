"""How soon a sign-out is known everywhere: on every worker of two instances, and it stays known.

    .venv/bin/python drills/revocation_delay.py [--rounds N] [--database sqlite|postgresql]

Each round opens a session, sees every worker let it in, ends it on one worker, and asks all of them until each has
refused. What counts is the time from the answer to the sign-out to the slowest worker's first refusal. It is done

1. with two honest instances,
2. on PostgreSQL, while another sign-out's transaction stays open for half a minute, and commits after all of them,
3. with one instance's clock ten minutes ahead, ended on the honest one and on the other: either is wrong to the other.

At the very end, when each worker has long read everything again, each token is shown to each worker once more.
"""

import asyncio
import math
import secrets
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # makes `drills` and `tests.support` importable

import jwt

from drills import skewed
from drills.ground import Figure, Says, main, serving
from drills.lines import Line, line_to_each_worker
from latchstring.core.revocations.rules import Revocation, RevocationKind, RevocationReason
from latchstring.core.revocations.store import insert_revocations
from latchstring.core.sessions import store
from latchstring.foundation.database import Connection, Database
from tests.support.hang import HANG_SECONDS
from tests.support.process import ServerProcess
from tests.support.service import registration

BOUND_SECONDS = 1.0
GIVE_UP_SECONDS = HANG_SECONDS
"""Then the delay counts as endless."""
ASK_AGAIN_SECONDS = 0.02
MINUTES_AHEAD = 10
LONG_LIVES = {"LATCHSTRING_ACCESS_TOKEN_EXPIRE_MINUTES": "30", "LATCHSTRING_REFRESH_TOKEN_EXPIRE_MINUTES": "60"}
"""No token runs out during the drill, not even by the clock that is ahead."""


def drill(url: str, *, rounds: int, workers: int = 4, held_seconds: float = 30) -> list[Figure]:
    """Return the delays seen; each instance has so many workers."""
    ended: list[str] = []
    with serving(url, workers=workers, variables=LONG_LIVES) as honest:
        with serving(url, workers=workers, variables=LONG_LIVES) as second:
            figures = asyncio.run(
                _between_honest_clocks(
                    url, (honest, second), rounds=rounds, workers=workers, held_seconds=held_seconds, ended=ended
                )
            )
        variables = {**LONG_LIVES, skewed.MINUTES_VARIABLE: str(MINUTES_AHEAD)}
        with serving(url, workers=workers, variables=variables, program=skewed.main) as ahead:
            figures += asyncio.run(
                _between_clocks_that_differ(honest, ahead, rounds=rounds, workers=workers, ended=ended)
            )
    return figures


async def _between_honest_clocks(
    url: str,
    servers: tuple[ServerProcess, ServerProcess],
    *,
    rounds: int,
    workers: int,
    held_seconds: float,
    ended: list[str],
) -> list[Figure]:
    async with (
        line_to_each_worker(servers[0], workers=workers) as first,
        line_to_each_worker(servers[1], workers=workers) as second,
    ):
        lines = [line for pair in zip(first, second, strict=True) for line in pair]
        delays: list[float] = []
        for turn in range(rounds):
            ender = lines[turn % len(lines)]
            delays += await _round(opener=lines[turn // 2 % len(lines)], ender=ender, witnesses=lines, ended=ended)
        figures = [_delay(f"all {len(lines)} workers of 2 instances refuse within 1 s of a sign-out", delays)]
        if url.startswith("postgresql"):
            figures += await _with_a_slow_transaction(url, lines, seconds=held_seconds, ended=ended)
        figures.append(await _stays_ended("what was ended stays so, on 2 honest instances", lines, ended))
    return figures


async def _between_clocks_that_differ(
    honest: ServerProcess, ahead: ServerProcess, *, rounds: int, workers: int, ended: list[str]
) -> list[Figure]:
    async with (
        line_to_each_worker(honest, workers=workers) as right,
        line_to_each_worker(ahead, workers=workers) as wrong,
    ):
        seen = await _minutes_ahead(wrong[0])
        assert abs(seen - MINUTES_AHEAD) < 1, f"the clock that should be {MINUTES_AHEAD} minutes ahead is {seen}"
        figures: list[Figure] = []
        for here, there, direction in (
            (right, wrong, "ended by the honest clock, refused by the one 10 min ahead within 1 s"),
            (wrong, right, "ended by the clock 10 min ahead, refused by the honest one within 1 s"),
        ):
            delays: list[float] = []
            for turn in range(rounds):
                # Always opened by the honest clock: to it, a token of the other comes from the future, and is refused.
                ender, opener = here[turn % len(here)], right[turn // 2 % len(right)]
                delays += await _round(opener=opener, ender=ender, witnesses=there, ended=ended)
            figures.append(_delay(direction, delays))
        figures.append(await _stays_ended("what was ended stays so, whatever the clock", [*right, *wrong], ended))
    return figures


async def _round(*, opener: Line, ender: Line, witnesses: Sequence[Line], ended: list[str]) -> list[float]:
    """Open a session and end it; return how long each witness went on letting it in."""
    token = await _open_session(opener)
    await _assert_let_in(witnesses, token)
    answer = await ender.ask("POST", "/api/auth/logout", token=token)
    signed_out = time.monotonic()
    assert answer.status_code == 200, answer.text
    ended.append(token)
    return await asyncio.gather(*(_seconds_until_refused(line, token, since=signed_out) for line in witnesses))


async def _with_a_slow_transaction(
    url: str, lines: Sequence[Line], *, seconds: float, ended: list[str]
) -> list[Figure]:
    token = await _open_session(lines[0])
    database = Database(url)
    delays: list[float] = []
    rounds = 0
    async with database.engine.connect() as slow:
        await _end_uncommitted(slow, token)
        until = time.monotonic() + seconds
        while rounds == 0 or time.monotonic() < until:
            ender = lines[rounds % len(lines)]
            delays += await _round(opener=lines[rounds // 2 % len(lines)], ender=ender, witnesses=lines, ended=ended)
            await _assert_let_in(lines, token)  # not committed: still alive, to everybody
            rounds += 1
        await slow.commit()
        committed = time.monotonic()
        late = await asyncio.gather(*(_seconds_until_refused(line, token, since=committed) for line in lines))
    await database.close()
    ended.append(token)
    return [
        _delay(f"sign-outs beside a transaction held open for {seconds:.0f} s are refused within 1 s", delays),
        _delay(f"that transaction's own sign-out, committed after {rounds} others, within 1 s", late),
    ]


async def _end_uncommitted(connection: Connection, token: str) -> None:
    """Do what a sign-out does to the database, and leave it at that."""
    claims = _claims(token)
    session_id, user_id, now = UUID(claims["sid"]), UUID(claims["sub"]), datetime.now(UTC)
    (ended,) = await store.end_session(connection, session_id, user_id=user_id, now=now, reason=RevocationReason.LOGOUT)
    entry = Revocation(
        kind=RevocationKind.SESSION,
        session_id=session_id,
        user_id=user_id,
        below_version=None,
        reason=RevocationReason.LOGOUT,
        expires_at=ended.access_expires_at + timedelta(minutes=1),
    )
    await insert_revocations(connection, [entry], now=now)


async def _open_session(line: Line) -> str:
    """Register somebody; return the access token."""
    name = secrets.token_hex(8)
    answer = await line.ask("POST", "/api/auth/register", json=registration(f"{name}@example.com"))
    assert answer.status_code == 201, answer.text
    return answer.cookies["access_token"]


async def _is_let_in(line: Line, token: str) -> bool:
    answer = await line.ask("GET", "/api/dashboard", token=token)
    if answer.status_code == 200:
        return True
    # A worker that refuses for any other reason has not learnt anything.
    assert (answer.status_code, answer.json()["code"]) == (401, "session_ended"), answer.text
    return False


async def _assert_let_in(lines: Sequence[Line], token: str) -> None:
    assert all(await asyncio.gather(*(_is_let_in(line, token) for line in lines))), "a living session was refused"


async def _seconds_until_refused(line: Line, token: str, *, since: float) -> float:
    while await _is_let_in(line, token):
        if time.monotonic() - since > GIVE_UP_SECONDS:
            return float("inf")
        await asyncio.sleep(ASK_AGAIN_SECONDS)
    return time.monotonic() - since


async def _stays_ended(promise: str, lines: Sequence[Line], ended: Sequence[str]) -> Figure:
    """Show every token to every worker again. One session that nobody ended is let in: they do not refuse blindly."""

    async def let_in(line: Line) -> int:
        return sum([await _is_let_in(line, token) for token in ended])

    came_back = sum(await asyncio.gather(*(let_in(line) for line in lines)))
    await _assert_let_in(lines, await _open_session(lines[0]))
    seen = f"{len(ended)} tokens shown to {len(lines)} workers: {came_back} let in"
    return Figure(promise, seen, is_kept=came_back == 0 and len(ended) > 0)


async def _minutes_ahead(line: Line) -> float:
    issued_at = int(_claims(await _open_session(line))["iat"])
    return (issued_at - time.time()) / 60


def _claims(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


def _delay(promise: str, delays: Sequence[float]) -> Figure:
    seen = f"{max(delays):.3f} s at most, median {statistics.median(delays):.3f} s, {len(delays)} times"
    says = Says.SPEED if math.isfinite(max(delays)) else Says.PROMISE
    return Figure(promise, seen, is_kept=max(delays) <= BOUND_SECONDS, says=says)


if __name__ == "__main__":
    sys.exit(main(drill, rounds=100))
