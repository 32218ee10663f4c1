"""A service that verifies tokens, and an issuer that misbehaves in every way an address on a network can.

    .venv/bin/python drills/issuer.py

The issuer is a socket of this drill's that shows genuine keys, and a genuine feed, until it is told to do otherwise: to
hang up, to say nothing, to drip, to be endless, to serve 10 MB, private keys, garbage, somebody else's page, compressed
bombs, a redirect. With each fault in place of the keys, and then in place of the feed, a service that had the keys
before is asked with tokens of keys it knows, each a new one, and with a hundred tokens at once of a key nobody knows.

1. Tokens of known keys go on being accepted, and none of them waits.
2. The others are refused, in the end: no question to the issuer takes longer than its bound.
3. There is one question for all hundred, and no other within a minute.
4. Memory does not grow by what is served.
5. Where revocations are followed, nobody is let in when the last good look was too long ago, and all are again with
   the next.
"""

import asyncio
import contextlib
import gc
import gzip
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # makes `drills` and `tests.support` importable

import psutil

from drills.ground import Figure, Says
from latchstring.core.keys.key_set import KeySet, key_set_from_pems
from latchstring.core.keys.settings import Algorithm
from latchstring.core.tokens.rules import Issuer, Kind, access_claims
from latchstring.core.tokens.tokens import signed
from latchstring.errors import RefusedError, RevocationsUnknownError
from latchstring.testing import ManualClock
from latchstring.verifier import TokenVerifier
from latchstring.verifier.issuer import TIMEOUT_SECONDS
from tests.support.forge import new_key, private_pem
from tests.support.issued import a_caller

KEYS, FEED = "/keys", "/feed"
AT_ONCE = 100
KNOWN = 20
WAIT_BOUND_SECONDS = 0.25
"""For twenty signatures to be checked, one after the other: nothing of it is a wait."""
REFUSED_BOUND_SECONDS = TIMEOUT_SECONDS + 1
GROWTH_BOUND_MIB = 16.0
MAX_LAG_SECONDS = 10

Writer = asyncio.StreamWriter
Fault = Callable[[Writer], Awaitable[None]]


async def hangs_up(writer: Writer) -> None:
    """Close without a word."""
    writer.close()


async def says_nothing(_writer: Writer) -> None:
    """Take the question, and never answer."""
    await asyncio.sleep(60)


async def drips(writer: Writer) -> None:
    """Answer a byte a second."""
    for octet in b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n":
        writer.write(bytes([octet]))
        await writer.drain()
        await asyncio.sleep(1)


async def drips_a_body(writer: Writer) -> None:
    """Answer at once, and the body a byte a second."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(1)


async def is_endless(writer: Writer) -> None:
    """Answer without end, as fast as it is read."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b" " * 65_536 + b"\r\n")
        await writer.drain()


async def has_endless_headers(writer: Writer) -> None:
    """Answer with headers without end."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: " + b"x" * 1000 + b"\r\n")
        await writer.drain()


def answers(body: bytes, *, status: str = "200 OK", headers: str = "") -> Fault:
    """Return what answers with this body."""

    async def answer(writer: Writer) -> None:
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode())
        # A piece at a time: what this end holds back is no growth of the other.
        for at in range(0, len(body), 65_536):
            writer.write(body[at : at + 65_536])
            await writer.drain()

    return answer


@dataclass
class FaultyIssuer:
    """The socket, what it was asked, and how it misbehaves."""

    good: dict[str, Fault]
    faults: dict[str, Fault] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    port: int = 0
    _answering: set["asyncio.Task[None]"] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen as long as the block runs."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            for task in list(self._answering):
                task.cancel()
            await asyncio.gather(*self._answering, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode().partition("?")[0]
                self.asked.append(path)
                await self.faults[path](writer)
        self._answering.discard(task)
        writer.close()


@dataclass
class Genuine:
    """A key, and tokens of it."""

    keys: KeySet
    made: int = 0

    @classmethod
    def new(cls, which: int) -> "Genuine":
        """Make one."""
        pem = private_pem(new_key("P-256", which)).decode()
        return cls(key_set_from_pems(algorithm=Algorithm.ES256, private=pem, public=None, extra_public=None))

    def token(self) -> str:
        """Return a token that was never seen before, of a minute ago, and good for days."""
        self.made += 1
        now = int(time.time()) - 60
        caller = a_caller(now=now, expires_at_unix=now + 10**6 + self.made)
        claims = access_claims(caller, generation=1, issuer=Issuer(name="latchstring", audience="latchstring"))
        return signed(self.keys, Kind.ACCESS, claims)


def faults_for(genuine: bytes) -> dict[str, Fault]:
    """Return everything that can stand where a genuine document should."""
    keys = json.loads(genuine).get("keys", [{}])
    private = json.dumps({"keys": [{**keys[0], "d": "AQAB"}]}).encode()
    return {
        "hangs up": hangs_up,
        "says nothing": says_nothing,
        "a byte a second": drips,
        "a body by the second": drips_a_body,
        "endless": is_endless,
        "endless headers": has_endless_headers,
        "10 MB": answers(b" " * 10_000_000),
        "10 MB of JSON": answers(b'{"keys":[' + b",".join([json.dumps(keys[0]).encode()] * 40_000) + b"]}"),
        "private keys": answers(private),
        "symmetric keys": answers(b'{"keys":[{"kty":"oct","k":"AAAA","alg":"HS256","kid":"a"}]}'),
        "two of one kid": answers(json.dumps({"keys": [keys[0], keys[0]]}).encode()),
        "an empty set": answers(b'{"keys":[]}'),
        "garbage": answers(bytes(range(256)) * 10),
        "nothing": answers(b""),
        "HTML": answers(b"<html><body>Welcome to the hotel</body></html>", headers="Content-Type: text/html\r\n"),
        "a compressed bomb": answers(gzip.compress(b" " * 50_000_000), headers="Content-Encoding: gzip\r\n"),
        "a redirect": answers(b"", status="302 Found", headers="Location: http://127.0.0.1:9/\r\n"),
        "500": answers(genuine, status="500 Internal Server Error"),
        "404": answers(genuine, status="404 Not Found"),
        "not HTTP": answers(b"", status="SSH-2.0 \x00"),
    }


@dataclass
class Seen:
    """What the service did."""

    refused_known: list[str] = field(default_factory=list)
    accepted_unknown: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    questions: list[int] = field(default_factory=list)
    lags: list[str] = field(default_factory=list)


def drill(*, few: bool = False) -> list[Figure]:
    """Return what was seen; with `few`, of the faults that take no time."""
    return asyncio.run(_faults(few=few))


async def _faults(*, few: bool) -> list[Figure]:
    known, unknown = Genuine.new(1), Genuine.new(2)
    document = json.dumps(known.keys.jwks()).encode()
    page = json.dumps({"cursor": "1", "resync": True, "more": False, "entries": [], "retired_keys": []}).encode()
    good = {KEYS: answers(document, headers="Cache-Control: max-age=300\r\n"), FEED: answers(page)}
    issuer = FaultyIssuer(good)
    slow = {"says nothing", "a byte a second", "a body by the second", "endless headers"} if few else set()
    faults = {name: fault for name, fault in faults_for(document).items() if name not in slow}
    seen = Seen()
    async with issuer.listening():
        # What is loaded for the first question of all stays, and is no growth.
        await _keys_round("404", faults["404"], issuer, known, unknown, seen=Seen())
        gc.collect()
        before = psutil.Process().memory_info().rss
        for name, fault in faults.items():
            await _keys_round(name, fault, issuer, known, unknown, seen=seen)
        for name, fault in faults.items():
            await _feed_round(name, fault, issuer, known, seen=seen)
    await _stopped_round(issuer, known, unknown, seen=seen)
    gc.collect()
    grown = (psutil.Process().memory_info().rss - before) / 2**20
    return _figures(seen, faults=len(faults), grown=grown)


def _figures(seen: Seen, *, faults: int, grown: float) -> list[Figure]:
    return [
        Figure(
            f"with {faults} faults in place of the keys or the feed, or a stopped issuer, known keys' tokens are taken",
            f"{len(seen.refused_known)} refused" + "".join(f"; {name}" for name in seen.refused_known[:3]),
            is_kept=not seen.refused_known,
        ),
        Figure(
            f"none of them waits: {KNOWN} one after the other take less than {WAIT_BOUND_SECONDS * 1000:.0f} ms",
            f"{max(seen.waits) * 1000:.1f} ms at most",
            is_kept=max(seen.waits) < WAIT_BOUND_SECONDS,
            says=Says.SPEED,
        ),
        Figure(
            f"tokens of unknown keys are refused, {AT_ONCE} at once within {REFUSED_BOUND_SECONDS:.0f} s",
            f"{len(seen.accepted_unknown)} accepted, the last refused after {max(seen.ends):.2f} s",
            is_kept=not seen.accepted_unknown and max(seen.ends) < REFUSED_BOUND_SECONDS,
            says=Says.PROMISE if seen.accepted_unknown else Says.SPEED,
        ),
        Figure(
            "they make it ask once, and not again within a minute",
            f"{max(seen.questions)} questions at most",
            is_kept=max(seen.questions) == 1,
        ),
        Figure(
            f"a follower lets nobody in {MAX_LAG_SECONDS} s after its last good look, and all again with the next",
            "; ".join(seen.lags) or "so it did, with each fault",
            is_kept=not seen.lags,
        ),
        Figure(
            f"memory grows by less than {GROWTH_BOUND_MIB:.0f} MiB",
            f"{grown:.1f} MiB",
            is_kept=grown < GROWTH_BOUND_MIB,
        ),
    ]


def _verifier(issuer: FaultyIssuer, clock: ManualClock, **changes: Any) -> TokenVerifier:  # noqa: ANN401 -- the constructor's
    return TokenVerifier(
        issuer="latchstring",
        jwks_url=f"http://127.0.0.1:{issuer.port}{KEYS}",
        allow_http=True,
        clock=clock,
        **changes,
    )


async def _keys_round(
    name: str, fault: Fault, issuer: FaultyIssuer, known: Genuine, unknown: Genuine, *, seen: Seen
) -> None:
    issuer.faults, clock = dict(issuer.good), ManualClock()
    verifier = _verifier(issuer, clock)
    async with verifier.running():
        issuer.faults[KEYS] = fault
        issuer.asked.clear()
        began = time.monotonic()
        waiting = [asyncio.create_task(_accepts(verifier, unknown.token())) for _ in range(AT_ONCE)]
        await asyncio.sleep(0)
        await _known_are_taken(name, verifier, known, seen)
        seen.accepted_unknown += [name for taken in await asyncio.gather(*waiting) if taken]
        seen.ends.append(time.monotonic() - began)
        clock.suspend(seconds=59)
        seen.accepted_unknown += [name for _ in range(3) if await _accepts(verifier, unknown.token())]
        seen.questions.append(len(issuer.asked))
        # Past their age: fetched beside, in vain, and used on.
        clock.suspend(seconds=300)
        await _known_are_taken(name, verifier, known, seen)


async def _feed_round(name: str, fault: Fault, issuer: FaultyIssuer, known: Genuine, *, seen: Seen) -> None:
    issuer.faults, clock = dict(issuer.good), ManualClock()
    verifier = _verifier(
        issuer,
        clock,
        revocations_url=f"http://127.0.0.1:{issuer.port}{FEED}",
        feed_token="lsf_drill",
        max_lag_seconds=MAX_LAG_SECONDS,
    )
    followed = verifier._revocations  # noqa: SLF001 -- asked to look now, and not in half a second
    assert followed is not None
    async with verifier.running():
        issuer.faults[FEED] = fault
        await _known_are_taken(name, verifier, known, seen)
        with contextlib.suppress(Exception):
            await followed.poll()
        await _known_are_taken(name, verifier, known, seen)
        clock.suspend(seconds=MAX_LAG_SECONDS + 0.1)
        try:
            await verifier.verify(known.token())
            seen.lags.append(f"let in on stale knowledge: {name}")
        except RevocationsUnknownError:
            pass
        issuer.faults = dict(issuer.good)
        await followed.poll()
        if not await _accepts(verifier, known.token()):
            seen.lags.append(f"not good again: {name}")


async def _stopped_round(issuer: FaultyIssuer, known: Genuine, unknown: Genuine, *, seen: Seen) -> None:
    clock = ManualClock()
    issuer.faults = dict(issuer.good)
    verifier = _verifier(issuer, clock)
    async with contextlib.AsyncExitStack() as stack:
        async with issuer.listening():
            await stack.enter_async_context(verifier.running())
        for seconds in (0, 300, 100_000):
            clock.suspend(seconds=seconds)
            await _known_are_taken("stopped", verifier, known, seen)
            seen.accepted_unknown += ["stopped" for _ in range(3) if await _accepts(verifier, unknown.token())]
        async with issuer.listening():
            clock.suspend(seconds=60)
            await _known_are_taken("started again", verifier, known, seen)


async def _known_are_taken(name: str, verifier: TokenVerifier, known: Genuine, seen: Seen) -> None:
    tokens = [known.token() for _ in range(KNOWN)]
    began = time.monotonic()
    for token in tokens:
        if not await _accepts(verifier, token):
            seen.refused_known.append(name)
    seen.waits.append(time.monotonic() - began)


async def _accepts(verifier: TokenVerifier, token: str) -> bool:
    try:
        await verifier.verify(token)
    except RefusedError:
        return False
    return True


def main() -> int:
    """Run the drill from the command line; return the exit code: 1 when a promise was broken."""
    print("| promise | seen | verdict |\n| --- | --- | --- |")
    began = time.monotonic()
    figures = drill()
    for figure in figures:
        print(figure.line())
    print(f"| *{time.monotonic() - began:.0f} s* | | |")
    return 0 if all(figure.is_kept for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
