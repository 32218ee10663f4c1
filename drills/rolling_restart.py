"""Two instances of two workers behind nginx, restarted in turn under load: no request is lost.

    .venv/bin/python drills/rolling_restart.py [--rounds N] [--database sqlite|postgresql]

Clients send GETs and POSTs as fast as they are answered; nginx sends no POST twice. An instance gets SIGTERM, ends with
exit code 0, and is started again on its port; then it is the other one's turn. N is the number of restarts.
"""

import asyncio
import contextlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import httpx2

from drills.ground import Figure, Says, bearer, main
from tests.support.hang import HANG_SECONDS
from tests.support.nginx import found_nginx, nginx, proxying
from tests.support.process import CHEAP_HASH, NO_TLS, ServerProcess
from tests.support.served import free_port
from tests.support.service import SECRET, credentials, registration

INSTANCES, WORKERS, CLIENTS = 2, 2, 8
AT_LEAST = 5_000
PAUSE_SECONDS = 5.0
KEEPALIVE = "3s"
"""Below the pause, and below the five seconds that the server itself keeps an idle connection."""


@dataclass
class Heard:
    """What clients were answered."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By method and status."""
    lost: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """How many requests were sent."""
        return self.answers.total() + len(self.lost)


@dataclass(frozen=True)
class Instance:
    """One `latchstring serve` at a port of its own, which is stopped and started."""

    port: int
    folder: Path
    variables: Mapping[str, str]

    def start(self) -> ServerProcess:
        """Start it, and wait until it is ready."""
        # The last `--port` counts.
        arguments = ("--port", str(self.port))
        return ServerProcess(self.folder, variables=self.variables, workers=WORKERS, arguments=arguments)


def drill(url: str, *, rounds: int) -> list[Figure]:
    """Return what was lost in so many restarts."""
    if found_nginx() is None:
        print("this drill needs nginx", file=sys.stderr)
        raise SystemExit(2)
    return restarts(url, rounds=rounds, pause_seconds=PAUSE_SECONDS, keepalive=KEEPALIVE, at_least=AT_LEAST)


def restarts(url: str, *, rounds: int, pause_seconds: float, keepalive: str, at_least: int) -> list[Figure]:
    """Return the same with a pause of one's own."""
    program = nginx()
    variables = {
        **CHEAP_HASH,
        "LATCHSTRING_DATABASE_URL": url,
        "LATCHSTRING_SECRET": SECRET,
        "LATCHSTRING_LIMITS": "off",
        "LATCHSTRING_SHUTDOWN_DRAIN_SECONDS": str(pause_seconds),
    }
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="latchstring-drill-")))
        instances = [Instance(free_port(), folder, variables) for _ in range(INSTANCES)]
        running = [instance.start() for instance in instances]
        try:
            address = stack.enter_context(
                proxying(program, ports=[instance.port for instance in instances], keepalive=keepalive)
            )
            heard, codes = asyncio.run(_live_through(address, instances, running, rounds=rounds, at_least=at_least))
        finally:
            for server in running:
                _stop(server)
    return _figures(heard, codes, rounds=rounds, at_least=at_least)


def _stop(server: ServerProcess) -> int:
    with server:
        return server.stop()


async def _live_through(
    address: str, instances: Sequence[Instance], running: list[ServerProcess], *, rounds: int, at_least: int
) -> tuple[Heard, list[int]]:
    heard, ending, codes = Heard(), asyncio.Event(), list[int]()
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(_ask_on(address, f"client{number}@example.com", heard, ending))
        try:
            for turn in range(rounds):
                which = turn % INSTANCES
                codes.append(await asyncio.to_thread(_stop, running[which]))
                running[which] = await asyncio.to_thread(instances[which].start)
            deadline = time.monotonic() + HANG_SECONDS
            while heard.total < at_least and time.monotonic() < deadline:  # noqa: ASYNC110 -- it tells nobody
                await asyncio.sleep(0.1)
        finally:
            ending.set()
    return heard, codes


async def _ask_on(address: str, email: str, heard: Heard, ending: asyncio.Event) -> None:
    async with httpx2.AsyncClient(base_url=address, timeout=HANG_SECONDS, verify=NO_TLS) as client:
        token = ""
        await _ask(client, heard, "POST", "/api/auth/register", json=registration(email))
        while not ending.is_set():
            response = await _ask(client, heard, "POST", "/api/auth/login", json=credentials(email))
            token = (response and response.cookies.get("access_token")) or token
            for path in ("/api/dashboard", "/api/auth/me", "/healthz"):
                await _ask(client, heard, "GET", path, headers=bearer(token))
            for _ in range(3):
                await _ask(client, heard, "POST", "/api/auth/logout")


async def _ask(
    client: httpx2.AsyncClient,
    heard: Heard,
    method: str,
    path: str,
    *,
    json: object | None = None,
    headers: Mapping[str, str] | None = None,
) -> httpx2.Response | None:
    client.cookies.clear()
    try:
        response = await client.request(method, path, json=json, headers=headers)
    except httpx2.TransportError as error:
        heard.lost.append(f"{method} {path}: {type(error).__name__}")
        return None
    if response.is_success:
        heard.answers[method, response.status_code] += 1
    else:
        heard.lost.append(f"{method} {path}: {response.status_code}")
    return response


def _figures(heard: Heard, codes: Sequence[int], *, rounds: int, at_least: int) -> list[Figure]:
    by_method = Counter[str]()
    for (method, _), count in heard.answers.items():
        by_method[method] += count
    lost = ", ".join(f"{count} × {what}" for what, count in Counter(heard.lost).most_common(5))
    return [
        Figure(
            f"{rounds} restarts behind nginx, {INSTANCES} instances of {WORKERS} workers: no request is lost",
            f"{len(heard.lost)} of {heard.total} lost ({by_method['GET']} GETs and {by_method['POST']} POSTs answered)"
            + (f": {lost}" if lost else ""),
            is_kept=not heard.lost,
        ),
        Figure(
            "each instance that was stopped ends with exit code 0",
            f"{codes.count(0)} of {len(codes)}",
            is_kept=codes == [0] * rounds,
        ),
        Figure(
            f"at least {at_least} requests, POSTs among them",
            f"{heard.total}",
            is_kept=heard.total >= at_least and by_method["POST"] > 0,
            says=Says.CONDITION,
        ),
    ]


if __name__ == "__main__":
    sys.exit(main(drill, rounds=10, databases=("postgresql",)))
