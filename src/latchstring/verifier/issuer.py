"""Questions to the issuer over HTTP, each of them bounded: in time, in size, and in where it may lead."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import httpx2

TIMEOUT_SECONDS = 5.0


class IssuerError(Exception):
    """The issuer did not answer, or not as an issuer does."""


@dataclass(frozen=True, slots=True)
class IssuerResponse:
    """A body, and for how long it may be kept."""

    body: bytes
    max_age_seconds: float | None


class IssuerClient:
    """Asks; within `connected`, over connections that are kept."""

    def __init__(self) -> None:
        self._client: httpx2.AsyncClient | None = None

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Keep connections while the block runs."""
        async with await _client() as client:
            self._client = client
            try:
                yield
            finally:
                self._client = None

    async def get(self, url: str, *, max_bytes: int, headers: Mapping[str, str] | None = None) -> IssuerResponse:
        """Return the answer to a GET.

        Raises:
            IssuerError: no answer within five seconds, another status than 200 (a redirect is not followed), more
                than `max_bytes`, or an answer that was compressed, which was not asked for.
        """
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                if self._client is not None:
                    return await _fetch(self._client, url, max_bytes=max_bytes, headers=headers or {})
                async with await _client() as client:
                    return await _fetch(client, url, max_bytes=max_bytes, headers=headers or {})
        except TimeoutError:
            raise IssuerError(f"no answer within {TIMEOUT_SECONDS:.0f} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise IssuerError(f"no answer: {type(error).__name__}") from error


async def _client() -> httpx2.AsyncClient:
    # In a thread: to load the certificates that are trusted takes as long as a hundred signatures.
    return await asyncio.to_thread(httpx2.AsyncClient, trust_env=False, timeout=TIMEOUT_SECONDS)


async def _fetch(client: httpx2.AsyncClient, url: str, *, max_bytes: int, headers: Mapping[str, str]) -> IssuerResponse:
    asked = {"Accept-Encoding": "identity", **headers}
    async with client.stream("GET", url, headers=asked, follow_redirects=False) as response:
        if response.status_code != httpx2.codes.OK:
            raise IssuerError(f"status {response.status_code}")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise IssuerError("an answer that is compressed")
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > max_bytes:
                raise IssuerError(f"more than {max_bytes} bytes")
        return IssuerResponse(body=bytes(body), max_age_seconds=_max_age(response.headers.get("cache-control", "")))


def _max_age(cache_control: str) -> float | None:
    """Return RFC 9111's `max-age`, nought where the answer may not be kept; None where nothing is said."""
    directives = [directive.strip().lower() for directive in cache_control.split(",")]
    if "no-store" in directives or "no-cache" in directives:
        return 0
    ages = [directive.removeprefix("max-age=") for directive in directives if directive.startswith("max-age=")]
    return float(ages[0]) if len(ages) == 1 and ages[0].isascii() and ages[0].isdecimal() else None
