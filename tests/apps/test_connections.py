"""T11: what one connection may hold. Whatever bytes arrive, a connection without a request in progress ends."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from latchstring.apps import connections
from latchstring.apps.connections import BoundedProtocol
from tests.support.connected import Serving, serving
from tests.support.hang import HANG_SECONDS, until

SHORT = 0.05
GET = b"GET /ignore HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD_OF_POST = b"POST /%b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[Serving]:
    """One server for all: what a connection may hold is a matter of the connection."""
    async with serving() as running:
        yield running


def says_close(response: bytes) -> bool:
    return b"connection: close\r\n" in response


@pytest.mark.parametrize(
    ("stray", "drip"),
    [
        pytest.param(b"", b"", id="nothing"),
        pytest.param(b"\n", b"", id="one byte"),
        pytest.param(b"\r\n", b"\r\n", id="empty lines for ever"),
        pytest.param(b"G", b"", id="the first byte of a request"),
        pytest.param(b"GET /ignore HTTP/1.1\r\nX-Slow: ", b"x", id="a head for ever"),
        pytest.param(b"GET /", b"x", id="a path for ever"),
        pytest.param(b"\0", b"", id="no HTTP"),
    ],
)
async def test_a_connection_without_a_request_ends_whatever_bytes_arrive(
    served: Serving, stray: bytes, drip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T11: after a response any byte stopped uvicorn's keep-alive timer, and nothing started it again."""
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_SECONDS", SHORT)
    async with served.client(keep_alive=SHORT) as client:
        await client.send(GET)
        await client.response()
        await client.send(stray)
        await client.rest(drip=drip)
        await served.has_no_connection()


async def test_empty_lines_between_requests_do_not_end_a_connection(served: Serving) -> None:
    """RFC 9112, 2.2: a server should ignore an empty line before a request. Some old clients send one after a body."""
    async with served.client() as client:
        (connection,) = served.server.server_state.connections
        for _ in range(3):
            await client.send(GET)
            assert not says_close(await client.response())
            await until(lambda: connection.timeout_keep_alive_task)  # type: ignore[union-attr]
            timer = connection.timeout_keep_alive_task  # type: ignore[union-attr]
            assert timer is not None
            await client.send(b"\r\n")
            await asyncio.sleep(SHORT)  # so that the line comes alone
            # The timer is the same one after the line, and the next request stops it: it would end that request.
            await client.send(HEAD_OF_POST % (b"read", 3))
            await until(timer.cancelled)
            await client.send(b"abc")
            await client.response()


async def test_a_head_that_has_begun_has_its_time_beyond_the_keep_alive_time(served: Serving) -> None:
    """Half a head arrives with the request before; the rest comes when the keep-alive time is over."""
    async with served.client(keep_alive=SHORT) as client:
        await client.send(GET + GET[:20])
        await client.response()
        await asyncio.sleep(3 * SHORT)
        await client.send(GET[20:])
        assert b"</ignore 0>" in await client.response()


@pytest.mark.parametrize(
    ("framing", "drip"),
    [
        pytest.param(b"Content-Length: 1000000\r\n\r\n{", b"x", id="length"),
        pytest.param(b"Content-Length: 1000000\r\n\r\n", b"", id="nothing of it"),
        pytest.param(b"Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n", b"x", id="expect"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", id="chunked"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n1;", b"x", id="extension"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n", id="trailers"),
        pytest.param(b"Content-Length: 9\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", b"", id="upgrade"),
        pytest.param(b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 39\r\n\r\n" + GET, GET, id="smuggled"),
    ],
)
async def test_after_the_response_to_an_unread_body_the_connection_ends(
    served: Serving, framing: bytes, drip: bytes
) -> None:
    """T11: the response says so, our side ends at once, and the other after the keep-alive time, however it drips."""
    for method in (b"POST", b"GET", b"HEAD", b"DELETE"):
        async with served.client(keep_alive=SHORT) as client:
            await client.send(method + b" /ignore HTTP/1.1\r\nHost: a\r\n" + framing)
            response = await client.rest(drip=drip)
            assert response.startswith(b"HTTP/1.1 200 OK\r\n")
            assert says_close(response)
            assert response.count(b"HTTP/1.1") == 1
            await served.has_no_connection()


async def test_the_rest_of_an_unread_body_does_not_reset_the_response(served: Serving) -> None:
    """RFC 9112, 9.6: a client that is still sending must get the response that tells it why; it may take its time."""
    async with served.client() as client:
        await client.send(HEAD_OF_POST % (b"ignore", 500_000))
        await client.send(b"x" * 400_000)
        assert b"</ignore 0>" in await client.rest()
        await client.send(b"x" * 100_000)  # nothing is reset while our side lingers
        await asyncio.sleep(SHORT)
        assert len(served.server.server_state.connections) == 1
        client.writer.close()
        await served.has_no_connection()


async def test_a_request_after_an_unread_body_is_not_served(served: Serving) -> None:
    """Its bytes could as well be a part of that body: a proxy that disagrees about the length smuggles requests so."""
    async with served.client() as client:
        await client.send(HEAD_OF_POST % (b"ignore", 10))
        await client.response()
        before = served.server.server_state.total_requests
        await client.send(b"0123456789" + GET)
        assert await client.rest() == b""
        await asyncio.sleep(SHORT)
        assert served.server.server_state.total_requests == before


async def test_a_whole_body_keeps_the_connection_in_however_many_pieces_it_comes(served: Serving) -> None:
    """The usual case: head and body in one segment, or in two, or byte by byte; then the next request."""
    async with served.client() as client:
        for pieces in ([b"abc"], [b"", b"abc"], [b"", b"a", b"b", b"c"]):
            await client.send(HEAD_OF_POST % (b"read", 3) + pieces[0])
            for piece in pieces[1:]:
                await asyncio.sleep(SHORT / 5)
                await client.send(piece)
            response = await client.response()
            assert b"</read 3>" in response
            assert not says_close(response)


async def test_an_expected_body_keeps_the_connection(served: Serving) -> None:
    """`Expect: 100-continue`, and a route that reads."""
    async with served.client() as client:
        await client.send((HEAD_OF_POST % (b"read", 3)).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        async with asyncio.timeout(HANG_SECONDS):
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"abc" + GET)
        assert not says_close(await client.response())
        assert b"</ignore 0>" in await client.response()


@pytest.mark.parametrize("asks_to_close", [False, True])
async def test_a_response_that_begins_before_the_body_has_arrived_ends_the_connection(
    served: Serving,
    asks_to_close: bool,  # noqa: FBT001 -- a parameter
) -> None:
    """Its head has been sent with `Connection: close` by the time that the body is complete; it is sent in full."""
    head = HEAD_OF_POST % (b"begin", 3)
    if asks_to_close:
        head = head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    async with served.client() as client:
        await client.send(head)
        async with asyncio.timeout(HANG_SECONDS):
            assert says_close(await client.reader.readuntil(b"\r\n\r\n"))
        await client.send(b"abc")
        assert b"</begin 3>" in await client.rest()
        await served.has_no_connection()


async def test_pipelined_requests_are_answered_in_order(served: Serving) -> None:
    """Whole ones in one piece, bodies among them; afterwards the connection is as good as before."""
    post = HEAD_OF_POST % (b"read", 3) + b"abc"
    async with served.client() as client:
        for _ in range(2):
            await client.send(GET + post + GET + post + post[:-1])
            responses = b"".join([await client.response() for _ in range(4)])
            assert re.findall(rb"</\w+ \d+>", responses) == [b"</ignore 0>", b"</read 3>"] * 2
            assert not says_close(responses)
            await client.send(b"c")
            assert b"</read 3>" in await client.response()


async def test_pipelined_bodies_and_heads_are_not_counted_together(served: Serving) -> None:
    """Bodies of 300 KiB before half a head: the bound on heads is on heads."""
    post = HEAD_OF_POST % (b"read", 300_000) + b"x" * 300_000
    async with served.client() as client:
        for _ in range(2):
            await client.send(post + GET[:10])
            assert b"</read 300000>" in await client.response()
            await client.send(GET[10:])
            assert b"</ignore 0>" in await client.response()


async def test_trailers_without_end_are_not_kept(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """No route gets to see them, and so no route can bound them; uvicorn would collect them all."""
    monkeypatch.setattr(connections, "BODY_MAX_BYTES", 100_000)
    async with served.client() as client:
        await client.send(b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: ")
        assert await client.rest(drip=b"x" * 10_000) == b""
        await served.has_no_connection()


@pytest.mark.parametrize("connection", [b"close", b"keep-alive"])
async def test_a_client_that_does_not_read_is_cut_off(
    served: Serving, connection: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A response that nobody reads would be kept, and its connection, for as long as the client acknowledges."""
    monkeypatch.setattr(connections, "SEND_TIMEOUT_SECONDS", SHORT)
    async with served.client() as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is for reading as well
        await client.send(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: " + connection + b"\r\n\r\n")
        await served.has_no_connection()


async def test_a_client_that_reads_is_not_cut_off(served: Serving) -> None:
    """The timer for a client that does not read ends when it has read."""
    async with served.client() as client:
        client.reader._limit = 2**26  # type: ignore[attr-defined]
        await client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.response()
        (connection,) = served.server.server_state.connections
        assert isinstance(connection, BoundedProtocol)
        await until(lambda: connection._abort_timer is None)
        await client.send(GET)
        await client.response()
