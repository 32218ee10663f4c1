"""A stolen key is retired at once: how long is a token of it still taken, by which worker, and what of everybody else?

    .venv/bin/python drills/emergency.py [--rounds N] [--database sqlite|postgresql]

The thief has the private key out of the database, and makes access tokens with it that are of no session's and of an
epoch far ahead, so that nothing but the key itself can give them away. In each round all workers of two instances take
them, and are asked with them without a pause while the operator runs `latchstring keys retire KID --now --yes`. What
counts is the time from the command's end to the last answer that let one in. Then

1. with two honest instances, and a service of its own that follows the feed,
2. with one instance's clock three minutes behind.
"""

import asyncio
import math
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # makes `drills` and `tests.support` importable

import jwt

from drills import skewed
from drills.ground import Figure, Says, main, serving
from drills.lines import Line, line_to_each_worker
from drills.stolen_key import StolenKey, steal
from latchstring import RefusedError
from latchstring.features.revocation_feed.actions import FeedTokens
from latchstring.foundation.clock import SystemClock
from latchstring.foundation.database import Database
from latchstring.foundation.events import OPERATOR
from latchstring.verifier import TokenVerifier
from tests.support.hang import HANG_SECONDS
from tests.support.process import ServerProcess, latchstring
from tests.support.service import SECRET, credentials, registration

WORKER_BOUND_SECONDS, FOLLOWER_BOUND_SECONDS = 1.0, 2.0
GO_ON_SECONDS = 1.5
"""So much longer than the command everybody is asked, and then until the first refusal."""
MINUTES_BEHIND = 3
AGE_SECONDS = 600
"""How old the thief's tokens say they are: the clock that is behind must not take them for tokens of the future."""
VARIABLES = {"JWT_ALGORITHM": "ES256"}


def drill(url: str, *, rounds: int, workers: int = 4) -> list[Figure]:
    """Return what was seen; each of two instances has so many workers."""
    with serving(url, workers=workers, variables=VARIABLES) as first:
        feed_token = asyncio.run(_feed_token(url))
        with serving(url, workers=workers, variables=VARIABLES) as second:
            figures = asyncio.run(_honest(url, (first, second), rounds=rounds, workers=workers, feed_token=feed_token))
        behind = {**VARIABLES, skewed.MINUTES_VARIABLE: str(-MINUTES_BEHIND)}
        with serving(url, workers=workers, variables=behind, program=skewed.main) as second:
            figures += asyncio.run(_behind(url, (first, second), rounds=rounds, workers=workers))
    return figures


async def _honest(
    url: str, servers: tuple[ServerProcess, ServerProcess], *, rounds: int, workers: int, feed_token: str
) -> list[Figure]:
    verifier = TokenVerifier(
        issuer="latchstring",
        jwks_url=f"{servers[0].url}/.well-known/jwks.json",
        revocations_url=f"{servers[0].url}/api/auth/revocations",
        feed_token=feed_token,
        allow_http=True,
    )
    email = f"{secrets.token_hex(8)}@example.com"
    lives: list[float] = []
    followers: list[float] = []
    refreshed = refused_newcomers = newcomers = 0
    async with (
        line_to_each_worker(servers[0], workers=workers) as first,
        line_to_each_worker(servers[1], workers=workers) as second,
        verifier.running(),
    ):
        lines = [*first, *second]
        await _registered(lines[0], email)
        for turn in range(rounds):
            session = await _signed_in(lines[turn % len(lines)], email)
            stolen = await steal(url, _header(session["access_token"])["kid"])
            ended, last, follower = await _retired(url, lines, stolen, verifier)
            lives += [max(0.0, at - ended) for at in last]
            followers.append(max(0.0, follower - ended))
            refreshed += await _refreshes(lines, stolen, session)
            # Signed in at one worker, known at once to all others.
            token = (await _signed_in(lines[(turn + 1) % len(lines)], email))["access_token"]
            newcomers += len(lines)
            refused_newcomers += sum(not taken for taken in await asyncio.gather(*(_takes(x, token) for x in lines)))
            await verifier.verify(token)
    return [
        _delay(f"all {len(lines)} workers of 2 instances refuse a stolen key's tokens within 1 s", lives, bound=1.0),
        _delay("a service that follows the feed refuses them within 2 s", followers, bound=FOLLOWER_BOUND_SECONDS),
        Figure(
            "the thief's refresh tokens get nothing, at any worker",
            f"{refreshed} of {rounds * len(lines)} answered",
            is_kept=refreshed == 0,
        ),
        Figure(
            "who signs in anew is known to every worker at once, whichever it was",
            f"{refused_newcomers} of {newcomers} refused",
            is_kept=refused_newcomers == 0,
        ),
    ]


async def _behind(url: str, servers: tuple[ServerProcess, ServerProcess], *, rounds: int, workers: int) -> list[Figure]:
    email = f"{secrets.token_hex(8)}@example.com"
    lives: list[float] = []
    async with (
        line_to_each_worker(servers[0], workers=workers) as honest,
        line_to_each_worker(servers[1], workers=workers) as late,
    ):
        await _registered(honest[0], email)
        for turn in range(rounds):
            session = await _signed_in(honest[turn % len(honest)], email)
            stolen = await steal(url, _header(session["access_token"])["kid"])
            # The honest ones are asked as well, so that their lines stay open.
            ended, last, _ = await _retired(url, [*late, *honest], stolen, None)
            lives += [max(0.0, at - ended) for at in last[: len(late)]]
    promise = f"workers whose clock is {MINUTES_BEHIND} min behind refuse them within 1 s"
    return [_delay(promise, lives, bound=WORKER_BOUND_SECONDS)]


async def _retired(
    url: str, lines: Sequence[Line], stolen: StolenKey, verifier: TokenVerifier | None
) -> tuple[float, list[float], float]:
    """Retire the key; return when the command ended, and when each worker, and the follower, last took a token."""
    token = stolen.access_token(user_id=uuid4(), session_id=uuid4(), age_seconds=AGE_SECONDS)
    assert all(await asyncio.gather(*(_takes(line, token) for line in lines))), "it is not taken to begin with"
    over = asyncio.Event()
    asking = [asyncio.create_task(_last_taken(line, token, over)) for line in lines]
    following = asyncio.create_task(_last_verified(verifier, token, over)) if verifier else None
    ended = await asyncio.to_thread(_retire, url, stolen.key.kid)
    await asyncio.sleep(GO_ON_SECONDS)
    over.set()
    last = await asyncio.gather(*asking)
    return ended, last, await following if following else 0.0


def _retire(url: str, kid: str) -> float:
    variables = {**VARIABLES, "LATCHSTRING_DATABASE_URL": url, "LATCHSTRING_SECRET": SECRET}
    with tempfile.TemporaryDirectory() as folder:
        done = latchstring("keys", "retire", kid, "--now", "--yes", cwd=Path(folder), variables=variables)
    assert done.returncode == 0, done.stderr
    return time.monotonic()


async def _last_taken(line: Line, token: str, over: asyncio.Event) -> float:
    return await _last(lambda: _takes(line, token), over)


async def _last_verified(verifier: TokenVerifier, token: str, over: asyncio.Event) -> float:
    async def verifies() -> bool:
        try:
            await verifier.verify(token)
        except RefusedError:
            return False
        return True

    return await _last(verifies, over)


async def _last(takes: Callable[[], Awaitable[bool]], over: asyncio.Event) -> float:
    """Return when a token was last taken; `inf`: it was taken on and on."""
    last, began = 0.0, time.monotonic()
    while (is_taken := await takes()) or not over.is_set():
        if is_taken:
            last = time.monotonic()
        if last - began > HANG_SECONDS:
            return math.inf
        await asyncio.sleep(0.005)
    return last


async def _takes(line: Line, token: str) -> bool:
    answer = await line.ask("GET", "/api/dashboard", token=token)
    assert answer.status_code in {200, 401}, answer.text
    return answer.status_code == 200


async def _refreshes(lines: Sequence[Line], stolen: StolenKey, session: dict[str, str]) -> int:
    claims = jwt.decode(session["refresh_token"], options={"verify_signature": False})
    token = stolen.refresh_token(
        user_id=UUID(claims["sub"]),
        session_id=UUID(claims["sid"]),
        generation=claims["gen"],
        age_seconds=AGE_SECONDS,
    )
    answers = [await line.ask("POST", "/api/auth/refresh", token=shown) for line in lines for shown in (token,)]
    return sum(answer.status_code == 200 for answer in answers)


async def _registered(line: Line, email: str) -> None:
    answer = await line.ask("POST", "/api/auth/register", json=registration(email))
    assert answer.status_code == 201, answer.text


async def _signed_in(line: Line, email: str) -> dict[str, str]:
    answer = await line.ask("POST", "/api/auth/login", json=credentials(email))
    assert answer.status_code == 200, answer.text
    return dict(answer.cookies)


def _header(token: str) -> dict[str, Any]:
    return jwt.get_unverified_header(token)


async def _feed_token(url: str) -> str:
    database = Database(url)
    try:
        token = await FeedTokens(database, SystemClock()).create(secrets.token_hex(8), source=OPERATOR)
    finally:
        await database.close()
    assert token is not None
    return token


def _delay(promise: str, delays: Sequence[float], *, bound: float) -> Figure:
    seen = f"{max(delays):.3f} s at most, median {statistics.median(delays):.3f} s, {len(delays)} times"
    says = Says.SPEED if math.isfinite(max(delays)) else Says.PROMISE
    return Figure(promise, seen, is_kept=max(delays) <= bound, says=says)


if __name__ == "__main__":
    sys.exit(main(drill, rounds=20))
