"""PgBouncer in transaction mode, with both drivers: no response fails, and a sign-out is known everywhere in a second.

    .venv/bin/python drills/pooler.py [--rounds N]

PostgreSQL alone, with a PgBouncer in front that has six connections, and gives each transaction the one that was used
longest ago. Two instances of two workers start at once on a database that is empty, with no setting but the URL. In
each round twenty people at once register, read `/me`, refresh four times and sign out; then somebody signs out at one
worker, and every worker is asked until it refuses.
"""

import asyncio
import contextlib
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # makes `drills` and `tests.support` importable

import httpx2

from drills.ground import Figure, Says, main, serving
from drills.lines import Line, line_to_each_worker
from tests.support.hang import HANG_SECONDS
from tests.support.pgbouncer import found_pgbouncer, pooler
from tests.support.process import NO_TLS, ServerProcess
from tests.support.service import registration

LIVES = 20
WORKERS = 2
BOUND_SECONDS = 1.0
ASK_AGAIN_SECONDS = 0.02
STEPS = (("GET", "/api/auth/me"), *[("POST", "/api/auth/refresh")] * 4, ("POST", "/api/auth/logout"))


def drill(url: str, *, rounds: int) -> list[Figure]:
    """Return what was seen through a pooler in front of the server of `url`, with each driver."""
    if found_pgbouncer() is None:
        print("this drill needs PgBouncer", file=sys.stderr)
        raise SystemExit(2)
    return pooled_lives(url, rounds=rounds, workers=WORKERS)


def pooled_lives(url: str, *, rounds: int, workers: int) -> list[Figure]:
    """Return the same with another number of workers."""
    figures: list[Figure] = []
    with pooler(url) as through:
        for driver in ("psycopg", "asyncpg"):
            pooled = through(url).replace("postgresql:", f"postgresql+{driver}:", 1)
            with _two_instances(pooled, workers=workers) as servers:
                figures += asyncio.run(_live(driver, servers, rounds=rounds, workers=workers))
    return figures


@contextlib.contextmanager
def _two_instances(url: str, *, workers: int) -> Iterator[list[ServerProcess]]:
    """Start two at the same instant: one of them migrates, and the other one waits for it."""
    instances = [serving(url, workers=workers) for _ in range(2)]
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(len(instances)) as starting:
        yield list(starting.map(stack.enter_context, instances))


async def _live(driver: str, servers: Sequence[ServerProcess], *, rounds: int, workers: int) -> list[Figure]:
    statuses: Counter[int] = Counter()
    delays: list[float] = []
    async with contextlib.AsyncExitStack() as stack:
        lines: list[Line] = []
        for server in servers:
            lines += await stack.enter_async_context(line_to_each_worker(server, workers=workers))
        for turn in range(rounds):
            await asyncio.gather(*(_life(servers[life % 2], statuses) for life in range(LIVES)))
            delays += await _sign_out(lines[turn % len(lines)], lines)
    expected = {201: rounds * LIVES, 200: rounds * LIVES * len(STEPS)}
    failed = sum(count for status, count in statuses.items() if status >= 500)
    others = sorted(set(statuses) - set(expected))
    return [
        Figure(
            f"{driver}: {LIVES} lives at once through a pooler, and no response is a 5xx",
            f"{sum(statuses.values())} responses, {failed} × 5xx, others {others or 'none'}",
            is_kept=statuses == expected,
        ),
        Figure(
            f"{driver}: all {len(lines)} workers refuse within 1 s of a sign-out",
            f"{max(delays):.3f} s at most",
            is_kept=max(delays) <= BOUND_SECONDS,
            says=Says.SPEED if max(delays) < HANG_SECONDS else Says.PROMISE,
        ),
    ]


async def _life(server: ServerProcess, statuses: Counter[int]) -> None:
    async with httpx2.AsyncClient(base_url=server.url, timeout=HANG_SECONDS, verify=NO_TLS) as client:
        body = registration(f"{secrets.token_hex(8)}@example.com")
        statuses[(await client.post("/api/auth/register", json=body)).status_code] += 1
        for method, path in STEPS:
            statuses[(await client.request(method, path)).status_code] += 1


async def _sign_out(ender: Line, witnesses: Sequence[Line]) -> list[float]:
    """Sign somebody out at one worker; return how long each of them let the token in."""
    body = registration(f"{secrets.token_hex(8)}@example.com")
    token = (await ender.ask("POST", "/api/auth/register", json=body)).cookies["access_token"]
    answer = await ender.ask("POST", "/api/auth/logout", token=token)
    assert answer.status_code == 200, answer.text
    signed_out = time.monotonic()

    async def refused(line: Line) -> float:
        while (answer := await line.ask("GET", "/api/dashboard", token=token)).status_code == 200:
            if time.monotonic() - signed_out > HANG_SECONDS:
                break
            await asyncio.sleep(ASK_AGAIN_SECONDS)
        else:
            assert answer.status_code == 401, answer.text
        return time.monotonic() - signed_out

    return await asyncio.gather(*(refused(line) for line in witnesses))


if __name__ == "__main__":
    sys.exit(main(drill, rounds=20, databases=("postgresql",)))
