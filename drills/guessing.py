"""Passwords are guessed, in parallel and with every trick: a policy's worth of guesses is checked, and not one more.

    .venv/bin/python drills/guessing.py [--rounds N] [--database sqlite|postgresql]

So many tries at one account, over connections spread evenly over the workers: through all four doors, in every spelling
of the address, each with other forged headers; and beside them, a user who is signed in and goes on. Then, behind a
proxy that is believed, as many at an account each, from addresses of one IPv6 network. What was checked is counted
twice: by the answers, and by the events on record.
"""

import asyncio
import contextlib
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2
import sqlalchemy as sa

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from drills.ground import Figure, bearer, main, serving
from drills.visitors import alone, operator, rows_of, workers_of
from latchstring.core.accounts.rules import canonical_email
from latchstring.foundation.audit import audit
from latchstring.foundation.events import SignInRefused
from tests.support.hang import HANG_SECONDS
from tests.support.process import NO_TLS, ServerProcess
from tests.support.service import PASSWORD, credentials, registration

WORKERS = 4
CONNECTIONS = 40
ACCOUNT, ADDRESS = 10, 100
"""The policy: failures in fifteen minutes, of an account and from a network address."""
WINDOW_SECONDS = 15 * 60

OWNER = "jos\u00e9.ada@b\u00fccher.example"
SPELLINGS = (
    OWNER,
    f" \t{OWNER} ",
    unicodedata.normalize("NFD", OWNER),
    "JOS\u00e9.ADA@B\u00dcCHER.EXAMPLE",
    "Jos\u00e9.Ada@xn--bcher-kva.example",
    "jos\u00e9.ada@XN--BCHER-KVA.EXAMPLE",
    "jos\u00e9.ada@b\u00fccher.\uff45xample",
    "Jose\u0301.aDA@Bu\u0308cher.Example",
)
BYSTANDER = "grace@example.com"
_REFRESH_EVERY_SECONDS = 1.2  # more than sixty a minute would be too many
_LOOK_EVERY_SECONDS = 0.05


@dataclass(frozen=True)
class Try:
    """One password, tried at a door."""

    number: int
    email: str
    password: str
    headers: dict[str, str]
    token: str = ""
    """Of a session of the account's own, for the doors that want one."""


Door = Callable[[httpx2.AsyncClient, Try], Awaitable[httpx2.Response]]


async def _login(client: httpx2.AsyncClient, tried: Try) -> httpx2.Response:
    body = credentials(tried.email, tried.password)
    return await client.post("/api/auth/login", json=body, headers=tried.headers)


async def _token(client: httpx2.AsyncClient, tried: Try) -> httpx2.Response:
    form = {"grant_type": "password", "username": tried.email, "password": tried.password}
    return await client.post("/api/auth/token", data=form, headers=tried.headers)


async def _confirm(client: httpx2.AsyncClient, tried: Try) -> httpx2.Response:
    headers = tried.headers | bearer(tried.token)
    return await client.post("/api/auth/confirm", json={"password": tried.password}, headers=headers)


async def _change(client: httpx2.AsyncClient, tried: Try) -> httpx2.Response:
    body = {"current_password": tried.password, "new_password": "an attacker's own password"}
    return await client.post("/api/auth/password/change", json=body, headers=tried.headers | bearer(tried.token))


WAYS_IN: Sequence[Door] = (_login, _token)
DOORS: Sequence[Door] = (*WAYS_IN, _confirm, _change)


def drill(url: str, *, rounds: int, workers: int = WORKERS) -> list[Figure]:
    """Return what was seen; `rounds` are the tries."""
    limits = {"LATCHSTRING_LIMITS": "on"}
    with serving(url, workers=workers, variables=limits) as server:
        figures = asyncio.run(_one_account(server, url, rounds=rounds, workers=workers))
    with serving(url, workers=workers, variables=limits | {"LATCHSTRING_TRUSTED_PROXIES": "127.0.0.1"}) as server:
        return figures + asyncio.run(_one_network(server, url, rounds=rounds, workers=workers))


# --- one account, nobody believed -------------------------------------------------------------------------------------


async def _one_account(server: ServerProcess, url: str, *, rounds: int, workers: int) -> list[Figure]:
    assert {canonical_email(spelling) for spelling in SPELLINGS} == {canonical_email(OWNER)}
    async with _connections(server, workers) as connections, _client(server) as owner, _client(server) as thief:
        for email, client in ((OWNER, owner), (BYSTANDER, thief)):
            answer = await client.post("/api/auth/register", json=registration(email))
            assert answer.status_code == 201, answer.text
        # The doors behind the guard are for whoever has got hold of a session.
        stolen = await _login(thief, Try(0, OWNER, PASSWORD, {}))
        token = stolen.cookies["access_token"]

        def guess(number: int, email: str = "") -> Try:
            spelling = email or SPELLINGS[number // len(DOORS) % len(SPELLINGS)]
            return Try(number, spelling, f"guess number {number}", _forged(number), token)

        async with _living_on(owner) as life:
            storm = await _storm(url, connections, DOORS, [guess(number) for number in range(rounds)])
            doors = [await door(connections[0], Try(0, OWNER, PASSWORD, {}, token)) for door in DOORS]
        shut = Counter(answer.status_code for answer in doors)
        waits = [int(answer.headers.get("retry-after", 0)) for answer in doors]
        tries = [guess(number, "nobody@example.com") for number in range(max(rounds // 10, 3 * ACCOUNT))]
        nobody = await _storm(url, connections, WAYS_IN, tries)
        bystander = await _login(thief, Try(0, BYSTANDER, PASSWORD, {}))

    spread = f"{len(connections)} connections to {workers} workers"
    return [
        Figure(
            promise=f"guesses at one account that are checked, whatever the door, the spelling and the headers: "
            f"at most {ACCOUNT} + {workers}",
            seen=f"{storm.checked} of {rounds}, by the events {storm.events}; {len(DOORS)} doors, {len(SPELLINGS)} "
            f"spellings, {rounds} forged addresses, {spread}; {storm.seconds:.1f} s",
            is_kept=storm.keeps(ACCOUNT, workers),
        ),
        Figure(
            promise="all others are refused with 429, and told how long to wait",
            seen=storm.refusals,
            is_kept=storm.refuses_the_rest,
        ),
        Figure(
            promise="the owner's living session goes on all along",
            seen=f"dashboard {_listed(life.looks)}, refresh {_listed(life.refreshes)}",
            is_kept=life.looks.keys() == {200} and life.refreshes.keys() == {200},
        ),
        Figure(
            promise="while it lasts, the owner's right password is refused at every door, for no more than the window",
            seen=f"{_listed(shut)}, Retry-After {min(waits)} to {max(waits)} s",
            is_kept=shut == {429: len(DOORS)} and 0 < min(waits) <= max(waits) <= WINDOW_SECONDS,
        ),
        Figure(
            promise=f"guesses at an address that nobody has: at most {ACCOUNT} + {workers}, and 429 beyond, alike",
            seen=f"{nobody.checked} of {nobody.tries}, by the events {nobody.events}; {nobody.refusals}",
            is_kept=nobody.keeps(ACCOUNT, workers) and nobody.refuses_the_rest,
        ),
        Figure(
            promise="another account signs in, be it from the guesser's own address",
            seen=str(bystander.status_code),
            is_kept=bystander.status_code == 200,
        ),
    ]


def _forged(number: int) -> dict[str, str]:
    address = f"203.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return {
        "X-Forwarded-For": f"{address}, 127.0.0.1",
        "Forwarded": f"for={address}",
        "X-Real-IP": address,
        "X-Client-IP": address,
        "True-Client-IP": address,
        "CF-Connecting-IP": address,
    }


@dataclass
class Life:
    """What the owner's session was answered while somebody guessed, by status."""

    looks: Counter[int]
    refreshes: Counter[int]


@contextlib.asynccontextmanager
async def _living_on(owner: httpx2.AsyncClient) -> AsyncIterator[Life]:
    """Let the owner go on as long as the block runs, and refresh once more at its end."""
    life = Life(looks=Counter(), refreshes=Counter())

    async def refresh() -> None:
        life.refreshes[(await owner.post("/api/auth/refresh")).status_code] += 1

    async def go_on() -> None:
        refreshed_at = -_REFRESH_EVERY_SECONDS
        while True:
            if time.monotonic() - refreshed_at >= _REFRESH_EVERY_SECONDS:
                refreshed_at = time.monotonic()
                await refresh()
            life.looks[(await owner.get("/api/dashboard")).status_code] += 1
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    running = asyncio.create_task(go_on())
    try:
        yield life
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    # A refresh that was cut off may have rotated; asked again within the grace, it is answered the same.
    await refresh()


# --- one network, a proxy believed ------------------------------------------------------------------------------------


async def _one_network(server: ServerProcess, url: str, *, rounds: int, workers: int) -> list[Figure]:
    rounds = max(rounds, ADDRESS + CONNECTIONS)
    async with _connections(server, workers) as connections, _client(server) as client:

        async def sign_in(email: str, address: str) -> int:
            """Tries the right password from an address that our proxy has seen."""
            answer = await _login(client, Try(0, email, PASSWORD, {"X-Forwarded-For": address}))
            return answer.status_code

        tries = [
            Try(
                number,
                f"visitor{number}@example.com",
                "the password of the year",
                # What stands on the left is the guesser's own word, what stands last is the proxy's.
                {"X-Forwarded-For": f"203.0.113.{number % 256}, 2001:db8:0:7:{number * 7919 % 65_536:x}::{number:x}"},
            )
            for number in range(rounds)
        ]
        storm = await _storm(url, connections, WAYS_IN, tries)
        within = await sign_in(BYSTANDER, "2001:db8:0:7::1")
        elsewhere = ["2001:db8:0:8::1", "2001:db8:0:6:ffff:ffff:ffff:ffff", "198.51.100.7", "203.0.113.1"]
        bystander = [await sign_in(BYSTANDER, address) for address in elsewhere]
        owner = [await sign_in(OWNER, address) for address in elsewhere]
    return [
        Figure(
            promise=f"guesses from one IPv6 /64, behind a trusted proxy, at an account each: "
            f"at most {ADDRESS} + {workers}",
            seen=f"{storm.checked} of {rounds}, by the events {storm.events}; {rounds} addresses of the /64, "
            f"{len(connections)} connections to {workers} workers; {storm.seconds:.1f} s",
            is_kept=storm.keeps(ADDRESS, workers),
        ),
        Figure(
            promise="all others are refused with 429, and told how long to wait",
            seen=storm.refusals,
            is_kept=storm.refuses_the_rest,
        ),
        Figure(
            promise="from that network nobody signs in for now, and from any other everybody does",
            seen=f"{within} from within; {_listed(Counter(bystander))} from the networks beside it and from IPv4",
            is_kept=within == 429 and set(bystander) == {200},
        ),
        Figure(
            promise="an account at its limit stays so wherever one comes from, and through a restart",
            seen=_listed(Counter(owner)),
            is_kept=set(owner) == {429},
        ),
    ]


def _listed(statuses: Counter[int]) -> str:
    return ", ".join(f"{times} × {status}" for status, times in sorted(statuses.items()))


# --- a storm ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Storm:
    """What became of many tries at once."""

    heard: Counter[tuple[int, str]]
    """By status and code."""
    told_to_wait: int
    events: int
    """How many guesses the audit trail says were checked and found wrong."""
    seconds: float

    @property
    def tries(self) -> int:
        """How many there were."""
        return self.heard.total()

    @property
    def checked(self) -> int:
        """How many guesses were checked, by what was answered; one that was right would count as well."""
        return sum(times for (status, _), times in self.heard.items() if status == 400 or status < 300)

    @property
    def refusals(self) -> str:
        """What the others heard."""
        others = {heard: times for heard, times in self.heard.items() if heard != (400, "invalid_credentials")}
        listed = ", ".join(f"{times} × {status} {code}" for (status, code), times in sorted(others.items()))
        return f"{listed}; {self.told_to_wait} with Retry-After"

    @property
    def refuses_the_rest(self) -> bool:
        """Whether whatever was not checked is a 429 that says how long to wait."""
        refused = self.heard[429, "too_many_requests"]
        return 0 < refused == self.tries - self.checked == self.told_to_wait

    def keeps(self, rate: int, workers: int) -> bool:
        """Tell whether the policy was kept, and really was what ended it."""
        return self.checked == self.events and rate <= self.checked <= rate + workers and self.tries > rate + workers


async def _storm(
    url: str, connections: Sequence[httpx2.AsyncClient], doors: Sequence[Door], tries: Sequence[Try]
) -> Storm:
    heard = Counter[tuple[int, str]]()
    told_to_wait = 0
    before = await _refusals_on_record(url)
    left: Iterator[Try] = iter(tries)

    async def guesser(client: httpx2.AsyncClient) -> None:
        nonlocal told_to_wait
        for tried in left:
            answer = await doors[tried.number % len(doors)](client, tried)
            code = str(answer.json().get("code")) if answer.content else ""
            heard[answer.status_code, code] += 1
            told_to_wait += answer.status_code == 429 and 0 < int(answer.headers["retry-after"]) <= WINDOW_SECONDS

    began_at = time.monotonic()
    await asyncio.gather(*map(guesser, connections))
    seconds = time.monotonic() - began_at
    events = await _refusals_on_record(url) - before
    return Storm(heard=heard, told_to_wait=told_to_wait, events=events, seconds=seconds)


async def _refusals_on_record(url: str) -> int:
    async with operator(url) as auth:
        refused = sa.select(audit.c.id).where(audit.c.fact == SignInRefused.name)
        return len(await rows_of(auth, refused))


def _client(server: ServerProcess) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=server.url, timeout=HANG_SECONDS, verify=NO_TLS)


@contextlib.asynccontextmanager
async def _connections(server: ServerProcess, workers: int) -> AsyncIterator[list[httpx2.AsyncClient]]:
    """Give clients with a connection each, as many to each worker."""
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for running in await asyncio.to_thread(workers_of, server, workers):
            with alone(running, server):
                for _ in range(CONNECTIONS // workers):
                    client = await stack.enter_async_context(_client(server))
                    assert (await client.get("/healthz")).status_code == 200
                    clients.append(client)
        # One of each worker, then the next of each: whoever comes first comes to all of them at once.
        yield [client for place in range(CONNECTIONS // workers) for client in clients[place :: CONNECTIONS // workers]]


if __name__ == "__main__":
    sys.exit(main(drill, rounds=1000))
