"""An application whose own handlers hold every connection of its engine: its guards go on.

A part of `drills/feed.py`. The application lends its engine, a pool of five, and five of its handlers hold a connection
each for longer than guards may go without news of what has ended.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator

import httpx2
import sqlalchemy as sa
from fastapi import FastAPI
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from drills.ground import Figure
from latchstring import Auth, CallerDep, Settings
from tests.support.service import SECRET, registration

POOL_SIZE = 5


def drill(url: str, *, seconds: float) -> list[Figure]:
    """Return what guards said while every connection was held for so many seconds."""
    return [asyncio.run(_hold(url, seconds=seconds))]


@contextlib.asynccontextmanager
async def _application(url: str) -> AsyncIterator[httpx2.AsyncClient]:
    engine = create_async_engine(
        make_url(url).set(drivername="postgresql+psycopg"), pool_size=POOL_SIZE, max_overflow=0, pool_timeout=60
    )
    app = FastAPI()
    auth = Auth(engine, secret=SECRET, settings=Settings(password_hash_memory_kib=8, password_hash_passes=1))
    auth.install(app)

    @app.get("/guarded")
    async def guarded(caller: CallerDep) -> str:
        return str(caller.user_id)

    @app.get("/slow")
    async def slow(seconds: float) -> None:
        async with engine.connect() as connection:
            await connection.execute(sa.text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})

    try:
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://testserver") as browser,
        ):
            yield browser
    finally:
        await engine.dispose()


async def _hold(url: str, *, seconds: float) -> Figure:
    async with _application(url) as browser:
        answer = await browser.post("/auth/register", json=registration())
        assert answer.status_code == 201, answer.text
        slow = [asyncio.create_task(browser.get(f"/slow?seconds={seconds}", timeout=60)) for _ in range(POOL_SIZE)]
        statuses: Counter[int] = Counter()
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            await asyncio.sleep(0.05)
            statuses[(await browser.get("/guarded")).status_code] += 1
        await asyncio.gather(*slow)
    return Figure(
        f"an application's handlers hold every connection for {seconds:.0f} s: no guard refuses",
        f"{statuses[200]} of {statuses.total()} were let in",
        is_kept=statuses[200] == statuses.total() > 0,
    )
