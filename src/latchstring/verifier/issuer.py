"""HTTP requests to the issuer, with a bounded time, a bounded size and no redirects."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import httpx2

# For the whole response: a client's own timeouts begin again with each chunk, so that a slow drip would never end.
TIMEOUT_SECONDS = 5.0


class IssuerError(Exception):
    """The issuer did not respond, or its response can't be used."""


@dataclass(frozen=True, slots=True)
class IssuerResponse:
    """A response body, and how long it may be cached."""

    body: bytes
    max_age_seconds: float | None


class IssuerClient:
    """Sends the requests; within `connected` it reuses connections."""

    def __init__(self) -> None:
        self._client: httpx2.AsyncClient | None = None

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Reuse connections while the block runs."""
        async with await _new_client() as client:
            self._client = client
            try:
                yield
            finally:
                self._client = None

    async def get(self, url: str, *, max_bytes: int, headers: Mapping[str, str] | None = None) -> IssuerResponse:
        """Return the response to a GET request.

        Raises:
            IssuerError: no response within five seconds, another status than 200 (a redirect is not followed), more
                than `max_bytes`, or a compressed response, which was not requested.
        """
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                if self._client is not None:
                    return await _fetch(self._client, url, max_bytes=max_bytes, headers=headers or {})
                async with await _new_client() as client:
                    return await _fetch(client, url, max_bytes=max_bytes, headers=headers or {})
        except TimeoutError:
            raise IssuerError(f"no response within {TIMEOUT_SECONDS:.0f} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            # The type alone: the text of such an error may hold the URL, and no value belongs in a log.
            raise IssuerError(f"no response: {type(error).__name__}") from error


async def _new_client() -> httpx2.AsyncClient:
    # In a thread: loading the trusted certificates takes as long as a hundred signatures.
    return await asyncio.to_thread(httpx2.AsyncClient, trust_env=False, timeout=TIMEOUT_SECONDS)


async def _fetch(client: httpx2.AsyncClient, url: str, *, max_bytes: int, headers: Mapping[str, str]) -> IssuerResponse:
    # No compression: a small response could expand to gigabytes (the class of CVE-2024-28180, a zip bomb).
    request_headers = {"Accept-Encoding": "identity", **headers}
    # No redirects: an open redirect at the issuer would choose other keys, or receive the feed token.
    async with client.stream("GET", url, headers=request_headers, follow_redirects=False) as response:
        if response.status_code != httpx2.codes.OK:
            raise IssuerError(f"status {response.status_code}")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise IssuerError("the response is compressed")
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > max_bytes:
                raise IssuerError(f"more than {max_bytes} bytes")
        return IssuerResponse(body=bytes(body), max_age_seconds=_max_age(response.headers.get("cache-control", "")))


def _max_age(cache_control: str) -> float | None:
    """Return the `max-age` of RFC 9111 in seconds; 0 if the response must not be cached; None if it does not say."""
    directives = [directive.strip().lower() for directive in cache_control.split(",")]
    if "no-store" in directives or "no-cache" in directives:
        return 0
    ages = [directive.removeprefix("max-age=") for directive in directives if directive.startswith("max-age=")]
    # Two ages that differ give none: the response is treated as if it did not say.
    return float(ages[0]) if len(ages) == 1 and ages[0].isascii() and ages[0].isdecimal() else None
