"""Keys rotate under load: no request fails, no verification, and no key signs before it was published long enough.

    .venv/bin/python drills/rotation.py [--rounds N] [--database sqlite|postgresql]

Two instances of four workers take some 200 requests a second over kept connections: guarded requests with tokens that
any other worker issued, refreshes, new sign-ins. Every access token that is issued is verified by two services of their
own: one by PyJWT, with a cache of the keys that keeps exactly `max-age` and never looks for a name it does not know;
and one by `TokenVerifier`. Caches may keep the keys for two seconds here, so that a new key signs after fourteen.

A round is: a rotation; three in a row, each as soon as the one before allows; one whose process dies in each of its
phases, and is run again; two operators at once; and a move to another algorithm and back, by a restart of one instance.
"""

import asyncio
import contextlib
import json
import secrets
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # makes `drills` and `tests.support` importable

import httpx2
import jwt

from drills import crashing
from drills.ground import Figure, main, serving
from drills.lines import Line, line_to_each_worker
from latchstring import LatchstringError
from latchstring.verifier import TokenVerifier
from tests.support.process import COMMAND, ServerProcess, clean_environment
from tests.support.service import SECRET, credentials, registration

MAX_AGE_SECONDS = 2
LEAD_SECONDS = 2 * MAX_AGE_SECONDS + 10
WAIT_SECONDS = LEAD_SECONDS + 10
"""Then a key that does not sign is given up."""
BEAT_SECONDS = 0.04
"""How often each of eight lines asks: 200 requests a second."""
REFRESH_EVERY, SIGN_IN_EVERY = 10, 100
TOKEN_SECONDS = 20
"""How long a token is shown: access tokens live for thirty."""
VARIABLES = {
    "LATCHSTRING_JWKS_MAX_AGE_SECONDS": str(MAX_AGE_SECONDS),
    "LATCHSTRING_ACCESS_TOKEN_EXPIRE_MINUTES": "0.5",
    "LATCHSTRING_REFRESH_TOKEN_EXPIRE_MINUTES": "5",
}
ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA"]


class ExactCache:
    """The keys as a stock verifier keeps them: for `max-age` to the millisecond, and not looked for before."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        self._client = httpx2.AsyncClient(timeout=30)
        self._fetched_at = float("-inf")
        self._fetches = 0
        self._keys = jwt.PyJWKSet.from_dict({"keys": [_PLACEHOLDER]})

    async def verifies(self, token: str) -> bool:
        """Tell whether the token holds by the keys that are cached."""
        if time.monotonic() - self._fetched_at > MAX_AGE_SECONDS:
            answer = await self._client.get(self._urls[self._fetches % len(self._urls)] + "/.well-known/jwks.json")
            assert answer.headers["cache-control"] == f"public, max-age={MAX_AGE_SECONDS}"
            # From when it was received: the latest that a cache may count from.
            self._keys, self._fetched_at = jwt.PyJWKSet.from_dict(answer.json()), time.monotonic()
            self._fetches += 1
        try:
            key = self._keys[jwt.get_unverified_header(token)["kid"]]
            jwt.decode(token, key, ALGORITHMS, audience="latchstring", issuer="latchstring", leeway=5)
        except (KeyError, jwt.InvalidTokenError):
            return False
        return True

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()


_PLACEHOLDER = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "none"}


@dataclass
class Seen:
    """What the drill saw of requests, tokens and keys."""

    requests: int = 0
    failed: list[str] = field(default_factory=list)
    verified: int = 0
    failed_by_pyjwt: list[str] = field(default_factory=list)
    failed_by_ours: list[str] = field(default_factory=list)
    tokens: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=400))
    published_by: dict[str, dict[int, float]] = field(default_factory=dict)
    """When each worker was first seen to publish a key."""
    signed_at: dict[str, float] = field(default_factory=dict)
    """When the first token of a key was seen, anywhere."""
    words: list[str] = field(default_factory=list)
    """What did not come out as it should have, of commands."""


class Load:
    """Everybody who asks, and everybody who verifies."""

    def __init__(self, lines: Sequence[Line], exact: ExactCache, ours: TokenVerifier, seen: Seen) -> None:
        self._lines = lines
        self._exact = exact
        self._ours = ours
        self.seen = seen
        self._over = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask as long as the block runs."""
        tasks = [asyncio.create_task(self._ask(line)) for line in self._lines]
        tasks.append(asyncio.create_task(self._watch()))
        try:
            yield
        finally:
            self._over.set()
            await asyncio.gather(*tasks)

    async def _ask(self, line: Line) -> None:
        email = f"{secrets.token_hex(8)}@example.com"
        pair = await self._tokens(line, "/api/auth/register", body=registration(email))
        beat = 0
        while not self._over.is_set():
            began = time.monotonic()
            beat += 1
            if beat % SIGN_IN_EVERY == 0:
                pair = await self._tokens(line, "/api/auth/login", body=credentials(email)) or pair
            elif beat % REFRESH_EVERY == 0:
                pair = await self._tokens(line, "/api/auth/refresh", token=pair["refresh_token"]) or pair
            else:
                await self._dashboard(line)
            await asyncio.sleep(max(0.0, BEAT_SECONDS - (time.monotonic() - began)))

    async def _dashboard(self, line: Line) -> None:
        issued_at, token = secrets.choice(self.seen.tokens)
        if time.monotonic() - issued_at > TOKEN_SECONDS:
            return
        answer = await line.ask("GET", "/api/dashboard", token=token)
        self.seen.requests += 1
        if answer.status_code != 200:
            self.seen.failed.append(f"dashboard {answer.status_code} {answer.text}")

    async def _tokens(
        self, line: Line, path: str, *, body: object | None = None, token: str | None = None
    ) -> dict[str, str]:
        answer = await line.ask("POST", path, json=body, token=token)
        self.seen.requests += 1
        if not answer.is_success:
            self.seen.failed.append(f"{path} {answer.status_code} {answer.text}")
            return {}
        pair = dict(answer.cookies)
        access = pair["access_token"]
        kid = jwt.get_unverified_header(access)["kid"]
        self.seen.signed_at.setdefault(kid, time.monotonic())
        self.seen.verified += 1
        if not await self._exact.verifies(access):
            self.seen.failed_by_pyjwt.append(kid)
        try:
            await self._ours.verify(access)
        except LatchstringError as error:
            self.seen.failed_by_ours.append(f"{kid} {error}")
        self.seen.tokens.append((time.monotonic(), access))
        return pair

    async def _watch(self) -> None:
        while not self._over.is_set():
            for number, line in enumerate(self._lines):
                answer = await line.ask("GET", "/.well-known/jwks.json")
                for jwk in answer.json()["keys"]:
                    self.seen.published_by.setdefault(jwk["kid"], {}).setdefault(number, time.monotonic())
            await asyncio.sleep(0.1)

    async def next_key_signs(self, before: set[str]) -> None:
        """Wait until a token of a key is seen that was not there before."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not self.seen.signed_at.keys() - before:
            if time.monotonic() > deadline:
                self.seen.words.append(f"no new key signed within {WAIT_SECONDS} s")
                return
            await asyncio.sleep(0.05)


class Operator:
    """Whoever runs commands, in the server's environment."""

    def __init__(self, url: str, seen: Seen) -> None:
        self._variables = {**VARIABLES, "LATCHSTRING_DATABASE_URL": url, "LATCHSTRING_SECRET": SECRET}
        self._seen = seen

    async def runs(self, *arguments: str, command: Sequence[str] = (COMMAND,), **variables: str) -> int:
        """Return a command's exit code."""
        environment = clean_environment(self._variables | variables)
        with tempfile.TemporaryDirectory() as folder:
            process = await asyncio.create_subprocess_exec(
                *command,
                *arguments,
                cwd=folder,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            return await process.wait()

    async def expects(self, code: int, *arguments: str, command: Sequence[str] = (COMMAND,), **variables: str) -> None:
        """Run a command, and note where its exit code is another than it should be."""
        got = await self.runs(*arguments, command=command, **variables)
        if got != code:
            self._seen.words.append(f"{' '.join(arguments)} exited with {got}, not {code}")


def drill(url: str, *, rounds: int, workers: int = 4) -> list[Figure]:
    """Return what was seen; each of two instances has so many workers."""
    with (
        serving(url, workers=workers, variables=VARIABLES) as first,
        serving(url, workers=workers, variables=VARIABLES) as second,
    ):
        return asyncio.run(_rotations(url, (first, second), rounds=rounds, workers=workers))


async def _rotations(
    url: str, servers: tuple[ServerProcess, ServerProcess], *, rounds: int, workers: int
) -> list[Figure]:
    seen = Seen()
    operator = Operator(url, seen)
    exact = ExactCache([server.url for server in servers])
    ours = TokenVerifier(issuer="latchstring", jwks_url=f"{servers[1].url}/.well-known/jwks.json", allow_http=True)
    async with (
        line_to_each_worker(servers[0], workers=workers) as one,
        line_to_each_worker(servers[1], workers=workers) as two,
        ours.running(),
    ):
        load = Load([*one, *two], exact, ours, seen)
        began = time.monotonic()
        async with load.running():
            await load.next_key_signs(set())
            first_keys = set(seen.signed_at)
            for _ in range(rounds):
                await _round(load, operator)
        seconds = time.monotonic() - began
    await exact.close()
    new = [kid for kid in seen.signed_at if kid not in first_keys]
    waits = [seen.signed_at[kid] - max(seen.published_by[kid].values()) for kid in new]
    everywhere = all(len(seen.published_by[kid]) == 2 * workers for kid in new)
    rate = seen.requests / seconds
    return [
        Figure(
            f"no request fails, with {2 * workers} workers of 2 instances",
            f"{len(seen.failed)} of {seen.requests} failed, {rate:.0f} a second{_first(seen.failed)}",
            is_kept=not seen.failed and seen.requests > 0,
        ),
        Figure(
            "each token verifies by a cache that keeps the keys for exactly their age (PyJWT)",
            f"{len(seen.failed_by_pyjwt)} of {seen.verified} failed{_first(seen.failed_by_pyjwt)}",
            is_kept=not seen.failed_by_pyjwt and seen.verified > 0,
        ),
        Figure(
            "and by a `TokenVerifier`, which never had to look for one",
            f"{len(seen.failed_by_ours)} of {seen.verified} failed{_first(seen.failed_by_ours)}",
            is_kept=not seen.failed_by_ours and ours._keys._looked_up_at is None,  # noqa: SLF001 -- the point
        ),
        Figure(
            f"a key signs more than {MAX_AGE_SECONDS} s after the last worker published it",
            f"{min(waits):.1f} s at least, {len(new)} keys" if waits else "no key",
            is_kept=bool(waits) and everywhere and min(waits) > MAX_AGE_SECONDS,
        ),
        Figure(
            "each command says what became of it: done, or under way (exit code 5)",
            "; ".join(seen.words) or "all did",
            is_kept=not seen.words,
        ),
    ]


async def _round(load: Load, operator: Operator) -> None:
    for _ in range(4):
        await _rotated(load, operator.expects(0, "keys", "rotate"))
    for phase in crashing.PHASES:
        await _rotated(load, _crashed(operator, phase))
    await _rotated(load, _two_at_once(operator, load.seen))
    # An instance that is started with another setting moves the whole home, while the others run on without it.
    for algorithm in ("ES256", "RS256"):
        await _rotated(load, operator.expects(0, "migrate", JWT_ALGORITHM=algorithm))


async def _rotated(load: Load, rotation: Coroutine[Any, Any, None]) -> None:
    before = set(load.seen.signed_at)
    await rotation
    await load.next_key_signs(before)


async def _crashed(operator: Operator, phase: str) -> None:
    script = (sys.executable, str(Path(crashing.__file__)))
    await operator.expects(crashing.EXIT_CODE, phase, command=script)
    # Run again: the whole, or the word that it is under way.
    await operator.expects(5 if phase == crashing.PHASES[-1] else 0, "keys", "rotate")


async def _two_at_once(operator: Operator, seen: Seen) -> None:
    codes = sorted(await asyncio.gather(*(operator.runs("keys", "rotate") for _ in range(2))))
    if codes != [0, 5]:
        seen.words.append(f"two operators at once exited with {codes}")


def _first(failures: Sequence[str]) -> str:
    return f": {json.dumps(failures[0])}" if failures else ""


if __name__ == "__main__":
    sys.exit(main(drill, rounds=1))
