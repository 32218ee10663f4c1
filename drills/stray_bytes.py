"""Connections without a request in progress end, whatever bytes arrive: 300 of each kind at once.

    .venv/bin/python drills/stray_bytes.py [--rounds N] [--database sqlite|postgresql]

Each gets a response; then it sends its bytes, again and again where they drip, and never closes by itself. What is
counted are the sockets that the server still has, 15 s after the last response. N is the number of connections of each
kind.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import psutil
import uvicorn

from drills.ground import Figure, main, serving
from latchstring.apps import connections
from latchstring.foundation.web import body
from tests.support.hang import HANG_SECONDS
from tests.support.process import ServerProcess, serve

OPEN_SECONDS = 15.0
DRIP_SECONDS = 1.0
_SHORT_SECONDS = 0.5
_LOOK_SECONDS = 0.2
_GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
_LONG = b"Content-Length: 9999\r\n\r\n"
_NOWHERE = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\n"
_LOGIN = b"POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@dataclass(frozen=True)
class Kind:
    """What a connection sends: a request, some bytes after the response, and some again and again."""

    name: str
    request: bytes
    stray: bytes = b""
    drip: bytes = b""
    drips_early: bool = False
    """While the response is still to come."""


KINDS = (
    Kind("nothing after a response", _GET),
    Kind("one byte after a response", _GET, b"G"),
    Kind("an empty line after a response", _GET, b"\r\n"),
    Kind("an empty line each second", _GET, drip=b"\r\n"),
    Kind("a request line, a byte each second", _GET, b"GET /", drip=b"x"),
    Kind("a body dripped after its 404", _NOWHERE + _LONG, drip=b"x"),
    Kind("a body dripped after its 200", _GET[:-2] + _LONG, drip=b"x"),
    Kind("a body that a 404 did not wait for", _NOWHERE + b"Expect: 100-continue\r\n" + _LONG),
    Kind("a body dripped until its 408, and after it", _LOGIN + _LONG, drip=b" ", drips_early=True),
    Kind(
        "a chunked body without end",
        _LOGIN + b"Transfer-Encoding: chunked\r\n\r\n",
        drip=b"1\r\n \r\n",
        drips_early=True,
    ),
)


@dataclass(frozen=True)
class Line:
    """Our end of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        # asyncio warns of each write to a connection that is gone.
        if not self.writer.transport.is_closing():
            self.writer.write(data)

    async def status(self) -> int:
        """Return the status of the response; 0 if there is none."""
        async with asyncio.timeout(HANG_SECONDS):
            first = await self.reader.readline()
        return int(first.split()[1]) if first else 0


class _ImpatientConfig(uvicorn.Config):
    def __init__(self, *given: Any, **named: Any) -> None:  # noqa: ANN401 -- uvicorn's own
        super().__init__(*given, **named)
        self.timeout_keep_alive = _SHORT_SECONDS  # type: ignore[assignment]  # whole seconds, it says


def drill(url: str, *, rounds: int) -> list[Figure]:
    """Return how many connections of each kind the server still has after 15 s."""
    with serving(url, workers=2) as server:
        return asyncio.run(_all_kinds(server, count=rounds, drip_seconds=DRIP_SECONDS, within=OPEN_SECONDS))


def small_drill(url: str, *, rounds: int) -> list[Figure]:
    """Return the same of a server that has less patience; how soon they end is not judged, that they end is."""
    with serving(url, workers=1, program=serve_impatiently) as server:
        return asyncio.run(_all_kinds(server, count=rounds, drip_seconds=_SHORT_SECONDS / 10, within=HANG_SECONDS))


def serve_impatiently() -> None:
    """Run `latchstring serve` with half a second for heads, bodies and idle connections."""
    body.TIMEOUT_SECONDS = connections.HEAD_TIMEOUT_SECONDS = _SHORT_SECONDS
    uvicorn.Config = _ImpatientConfig  # type: ignore[misc]
    serve()


async def _all_kinds(server: ServerProcess, *, count: int, drip_seconds: float, within: float) -> list[Figure]:
    tries = [_try_kind(server, kind, count=count, drip_seconds=drip_seconds, within=within) for kind in KINDS]
    return await asyncio.gather(*tries)


async def _try_kind(server: ServerProcess, kind: Kind, *, count: int, drip_seconds: float, within: float) -> Figure:
    async with _lines(server, kind, count) as lines:
        may_drip = asyncio.Event()
        dripping = asyncio.create_task(_drip(lines, kind, may_drip, seconds=drip_seconds))
        if kind.drips_early:
            may_drip.set()
        statuses = await asyncio.gather(*(line.status() for line in lines))
        began = time.monotonic()
        for line in lines:
            line.send(kind.stray)
        may_drip.set()
        ports = {line.writer.get_extra_info("sockname")[1] for line in lines}
        left = ports
        while left and time.monotonic() < began + within:
            await asyncio.sleep(_LOOK_SECONDS)
            left = ports & await asyncio.to_thread(_clients, server)
        took = time.monotonic() - began
        dripping.cancel()
    return _figure(kind, statuses, left=len(left), took=took, within=within)


@contextlib.asynccontextmanager
async def _lines(server: ServerProcess, kind: Kind, count: int) -> AsyncIterator[list[Line]]:
    port = urlsplit(server.url).port or 0
    lines: list[Line] = []
    try:
        for _ in range(count):
            lines.append(Line(*await asyncio.open_connection("127.0.0.1", port)))
            lines[-1].send(kind.request)
        yield lines
    finally:
        for line in lines:
            line.writer.close()


async def _drip(lines: Sequence[Line], kind: Kind, may_drip: asyncio.Event, *, seconds: float) -> None:
    await may_drip.wait()
    while kind.drip:
        for line in lines:
            line.send(kind.drip)
        await asyncio.sleep(seconds)


def _clients(server: ServerProcess) -> set[int]:
    """Return the clients' ports of all connections that the server's processes have."""
    parent = psutil.Process(server.pid)
    return {
        getattr(found.raddr, "port", 0)
        for process in [parent, *parent.children(recursive=True)]
        for found in process.net_connections("tcp")
        if found.laddr.port == urlsplit(server.url).port
    }


def _figure(kind: Kind, statuses: Sequence[int], *, left: int, took: float, within: float) -> Figure:
    seen = ", ".join(map(str, sorted(set(statuses))))
    return Figure(
        f"{kind.name}: none is open after {within:.0f} s",
        f"{left} of {len(statuses)} open after {took:.1f} s; responses: {seen}",
        is_kept=left == 0 and 0 not in statuses,
    )


if __name__ == "__main__":
    sys.exit(main(drill, rounds=300, databases=("sqlite",)))
