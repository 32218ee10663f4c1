"""Lines to workers: clients whose one connection stays with one process, so that it is known who was asked.

async with line_to_each_worker(server, workers=4) as lines:
    answer = await lines[0].ask("GET", "/api/dashboard", token=access)

The kernel gives a connection to whichever worker takes it first. So connections are opened until every worker has one,
and each is kept alive; an answer that came over a new connection, and so perhaps from another worker, raises instead.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
import psutil

from drills.ground import bearer
from tests.support.hang import HANG_SECONDS
from tests.support.process import NO_TLS, ServerProcess

SEARCH_SECONDS = 2 * HANG_SECONDS
KEEP_ALIVE_SECONDS = 2.0
AT_ONCE = 4
"""Connections opened together, so that one idle worker can't take them all."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One connection to one worker."""

    worker: int
    """The worker's process id."""
    port: int
    """Our end."""
    client: httpx2.AsyncClient

    async def ask(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        json: object | None = None,
        keep_cookies: bool = False,
    ) -> httpx2.Response:
        """Return this worker's answer; cookies go from one request to the next only where told so."""
        if not keep_cookies:
            self.client.cookies.clear()
        answer = await self.client.request(method, path, headers=bearer(token) if token else None, json=json)
        if _our_port(answer) != self.port:
            raise RuntimeError(f"worker {self.worker} closed its connection, and another may have answered")
        return answer


@contextlib.asynccontextmanager
async def line_to_each_worker(server: ServerProcess, *, workers: int) -> AsyncIterator[list[Line]]:
    """Give a line to each of a server's workers."""
    async with contextlib.AsyncExitStack() as stack:
        found: dict[int, Line] = {}
        deadline = time.monotonic() + SEARCH_SECONDS
        while len(found) < workers:
            if time.monotonic() > deadline:
                raise RuntimeError(f"only {len(found)} of {workers} workers take connections")
            clients = [await stack.enter_async_context(_client(server)) for _ in range(AT_ONCE)]
            answers = await asyncio.gather(*(client.get("/healthz") for client in clients))
            owners = _owners(server)
            for client, answer in zip(clients, answers, strict=True):
                port = _our_port(answer)
                if port in owners:
                    worker = owners[port]
                    found.setdefault(worker, Line(worker=worker, port=port, client=client))
            for line in found.values():
                await line.ask("GET", "/healthz")
        lines = list(found.values())
        keeping = asyncio.create_task(_keep_alive(lines))
        try:
            yield lines
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])


async def _keep_alive(lines: Sequence[Line]) -> None:
    # The server hangs up on who says nothing for five seconds.
    while True:
        await asyncio.sleep(KEEP_ALIVE_SECONDS)
        await asyncio.gather(*(line.ask("GET", "/healthz", keep_cookies=True) for line in lines))


def _client(server: ServerProcess) -> httpx2.AsyncClient:
    # An idle connection is dropped by us after a while, as by the server: never here, since it could not be replaced.
    limits = httpx2.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=None)
    return httpx2.AsyncClient(base_url=server.url, timeout=HANG_SECONDS, limits=limits, verify=NO_TLS)


def _our_port(answer: httpx2.Response) -> int:
    address: Any = answer.extensions["network_stream"].get_extra_info("client_addr")
    return int(address[1])


def _owners(server: ServerProcess) -> dict[int, int]:
    """Return the worker at the other end of each of our ports. With one worker it is the server's own process."""
    parent = psutil.Process(server.pid)
    owners: dict[int, int] = {}
    for process in [parent, *parent.children(recursive=True)]:
        with contextlib.suppress(psutil.AccessDenied, psutil.NoSuchProcess):
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_ESTABLISHED:
                    owners[connection.raddr.port] = process.pid
    return owners
