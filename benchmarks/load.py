"""Load over connections that are kept alive, each sending its next request when the last one is answered.

hammer     the same requests over and over: by wrk where it is installed, else by our own loop
converse   each request made from the last answer: our own loop
"""

import asyncio
import itertools
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

WRK = shutil.which("wrk")

Script = Callable[[bytes], bytes]
"""The last answer (empty at first) to the next request."""

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_SET_COOKIE = re.compile(rb"\r\nset-cookie: *([^=;\r]+)=([^;\r]*)", re.IGNORECASE)
_END_OF_HEAD = b"\r\n\r\n"
# wrk leaves its last requests unanswered, and the server still works at them.
_DRAIN_SECONDS = 0.3

_LUA = """
local requests = {%s}
local turn = 0
function request() turn = turn %% #requests + 1; return requests[turn] end
function done(summary, latency)
  local e = summary.errors
  local failed = e.status + e.connect + e.read + e.write + e.timeout
  print(string.format("RESULT %%d %%d %%d %%f", summary.requests, failed, summary.duration, latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Load:
    """What was answered; a refusal or a broken connection is an error and never counted."""

    requests: int
    seconds: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


def request(method: str, path: str, *, cookies: Sequence[str] = (), body: bytes = b"") -> bytes:
    """Return a request as it travels."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if cookies:
        lines.append(f"Cookie: {'; '.join(cookies)}")
    if body:
        lines.append("Content-Type: application/json")
    if method != "GET":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def cookie_follower(method: str, path: str, cookies: Sequence[str], *, body: bytes = b"") -> Script:
    """Return a client that sends one request again and again, always with the cookies it was given last."""
    jar = dict(cookie.split("=", 1) for cookie in cookies)

    def following(answer: bytes) -> bytes:
        jar.update((name.decode(), value.decode()) for name, value in _SET_COOKIE.findall(answer))
        return request(method, path, cookies=[f"{name}={value}" for name, value in jar.items()], body=body)

    return following


async def hammer(port: int, requests: Sequence[bytes], *, connections: int, seconds: float) -> Load:
    """Send `requests` in turn, over and over.

    Raises:
        RuntimeError: something was refused.
    """
    if WRK:
        return await _wrk(WRK, port, requests, connections=connections, seconds=seconds)
    turns = itertools.cycle(requests)
    return await converse(port, [lambda _answer: next(turns)] * connections, seconds=seconds)


async def converse(port: int, scripts: Sequence[Script], *, seconds: float) -> Load:
    """Follow each script on a connection of its own; end when the last answer is there.

    Raises:
        RuntimeError: something was refused.
    """
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    latencies: list[float] = []
    clients = [_Client(script, latencies, until=began + seconds) for script in scripts]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.gather(*(client.done for client in clients))
    latencies.sort()
    return Load(len(latencies), time.perf_counter() - began, latencies[int(len(latencies) * 0.99)] * 1000)


class _Client(asyncio.Protocol):
    def __init__(self, script: Script, latencies: list[float], *, until: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._script = script
        self._latencies = latencies
        self._until = until
        self._received = b""
        self.done: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send(b"")

    def data_received(self, data: bytes) -> None:
        self._received += data
        head_ends = self._received.find(_END_OF_HEAD)
        length = _CONTENT_LENGTH.search(self._received)
        if head_ends < 0 or length is None or len(self._received) < head_ends + len(_END_OF_HEAD) + int(length[1]):
            return
        answer, self._received = self._received, b""
        self._latencies.append(time.perf_counter() - self._sent_at)
        if not answer.startswith(b"HTTP/1.1 2"):
            self._end(RuntimeError(answer.decode(errors="replace")))
        elif time.perf_counter() < self._until:
            self._send(answer)
        else:
            self._script(answer)  # what it was given last counts, should it go on another time
            self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or RuntimeError("the server hung up"))

    def _send(self, answer: bytes) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(self._script(answer))

    def _end(self, error: Exception | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
        self._transport.close()


async def _wrk(program: str, port: int, requests: Sequence[bytes], *, connections: int, seconds: float) -> Load:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as lua:
        # What JSON writes for a string of ASCII is a string of Lua, too.
        lua.write(_LUA % ",\n".join(json.dumps(one.decode("ascii")) for one in requests))
        lua.flush()
        process = await asyncio.create_subprocess_exec(
            *(program, "--threads", "1", "--connections", str(connections), "--duration", f"{seconds:.0f}s"),
            *("--timeout", "30s", "--script", lua.name, f"http://127.0.0.1:{port}/"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output = (await process.communicate())[0].decode()
    result = re.search(r"^RESULT (\d+) (\d+) (\d+) (\S+)$", output, re.MULTILINE)
    if result is None or int(result[2]):
        raise RuntimeError(f"wrk failed, or something was refused:\n{output}")
    await asyncio.sleep(_DRAIN_SECONDS)
    return Load(int(result[1]), int(result[3]) / 1e6, float(result[4]) / 1000)
