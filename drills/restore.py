"""An older copy is put back under load: after `latchstring restored`, is anything of before still let in?

    .venv/bin/python drills/restore.py [--rounds N] [--database sqlite|postgresql]

Each round takes a backup in one way, in turn: SQLite's `.backup`, `VACUUM INTO`, and file and log as a streaming copy
ships them; PostgreSQL's dump, base backup, and base backup with archived log to a point in time. Every other round has
its keys from the environment. Then users sign out, change their password, are disabled and register; all of them hold
tokens. The copy is put back while clients go on, and the command run, twice in a row: the same copy again, and the
command again. What counts is who is let in after the command, by which token, and who can sign in.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # makes `drills` and `tests.support` importable

import httpx2
import jwt

from drills.backups import WAYS, Way
from drills.ground import Figure, Says, bearer, main, serving
from latchstring import OPERATOR, Auth
from tests.support.forge import new_key, private_pem
from tests.support.hang import HANG_SECONDS
from tests.support.process import NO_TLS, ServerProcess, latchstring
from tests.support.service import PASSWORD, SECRET, cheap_settings, credentials, registration

BOUND_SECONDS = 1.0
LOAD_CLIENTS = 4
ASKED = 3
"""How often a token is shown: whichever worker takes the connection answers."""
USERS = 4
"""How many users each thing happens to after the copy was taken."""
UNCHANGED, SIGNED_OUT, CHANGED, DISABLED, LATER, NEWCOMER = "unchanged", "out", "changed", "disabled", "later", "new"


@dataclass
class Seen:
    """What was seen in all rounds."""

    held: int = 0
    tried: int = 0
    let_in_before: int = 0
    accessed: int = 0
    refreshed: int = 0
    newcomers: int = 0
    signed_in: int = 0
    signing_in: int = 0
    errors: int = 0
    answers: int = 0
    epochs_that_fell: int = 0
    epochs: int = 0
    lives: list[float] = field(default_factory=list)
    ways: dict[str, int] = field(default_factory=dict)


class Server:
    """`latchstring serve`, which may be stopped and started."""

    def __init__(self, url: str, *, workers: int, variables: dict[str, str]) -> None:
        self.variables = {"JWT_ALGORITHM": "ES256", **variables}
        self.database = url
        self._workers = workers
        self._stack = contextlib.ExitStack()
        self.process: ServerProcess | None = None

    def start(self) -> None:
        self.process = self._stack.enter_context(
            serving(self.database, workers=self._workers, variables=self.variables)
        )

    def stop(self) -> None:
        self.process = None
        self._stack.close()

    async def ask(self, method: str, path: str, *, token: str | None = None, body: object = None) -> httpx2.Response:
        """Returns the answer of any worker: each request has a connection of its own."""
        if self.process is None:
            raise httpx2.ConnectError("stopped")
        async with httpx2.AsyncClient(base_url=self.process.url, timeout=HANG_SECONDS, verify=NO_TLS) as client:
            return await client.request(method, path, headers=bearer(token) if token else None, json=body)


@dataclass(frozen=True)
class Tokens:
    """What somebody holds."""

    kind: str
    email: str
    access: str
    refresh: str


def drill(
    url: str,
    *,
    rounds: int,
    workers: int = 2,
    ways: Sequence[type[Way]] | None = None,
    copies: int = 2,
    users: int = USERS,
) -> list[Figure]:
    """Return what was seen; each round puts its copy back so many times, and each thing happens to so many users."""
    ways = ways or WAYS["sqlite" if url.startswith("sqlite") else "postgresql"]
    pem = base64.b64encode(private_pem(new_key("P-256"))).decode()
    seen = Seen()
    for turn in range(rounds):
        way = ways[turn % len(ways)]()
        # Each way has both kinds of keys.
        has_own_keys = (turn + turn // len(ways)) % 2 == 1
        seen.ways[way.name] = seen.ways.get(way.name, 0) + 1
        with way.database(url) as database, tempfile.TemporaryDirectory(prefix="latchstring-drill-") as folder:
            server = Server(database, workers=workers, variables={"JWT_PRIVATE_KEY": pem} if has_own_keys else {})
            server.start()
            try:
                asyncio.run(_round(server, way, Path(folder), f"r{turn}", seen, copies=copies, users=users))
            finally:
                server.stop()
    return _figures(seen)


def _figures(seen: Seen) -> list[Figure]:
    ways = ", ".join(f"{name} ({count})" for name, count in seen.ways.items())
    return [
        Figure(
            "before the command it lets in who signed out or was disabled since the copy, or is not in it",
            f"{seen.let_in_before} of {seen.held} tokens",
            is_kept=seen.let_in_before > 0,
            says=Says.CONDITION,
        ),
        _none(f"after it no access token of before is let in ({ways})", seen.accessed, seen.tried),
        _none("and no refresh token", seen.refreshed, seen.tried),
        _none("and no user who is not in the copy can sign in", seen.newcomers, seen.epochs),
        Figure(
            "everyone in the copy signs in, and every worker takes their tokens",
            f"{seen.signed_in} of {seen.signing_in}",
            is_kept=seen.signed_in == seen.signing_in > 0,
        ),
        _none("no epoch is given twice, with the same copy put back twice", seen.epochs_that_fell, seen.epochs),
        _none("meanwhile no response is a 500", seen.errors, seen.answers),
        Figure(
            f"an access token of before is let in for {BOUND_SECONDS:.0f} s at most after the command has returned",
            f"{max(seen.lives, default=0.0):.2f} s at most, {len(seen.lives)} times",
            is_kept=max(seen.lives, default=0.0) <= BOUND_SECONDS,
            says=Says.SPEED,
        ),
    ]


def _none(promise: str, count: int, of: int) -> Figure:
    return Figure(promise, f"{count} of {of}", is_kept=count == 0 and of > 0)


async def _round(server: Server, way: Way, folder: Path, name: str, seen: Seen, *, copies: int, users: int) -> None:
    of_copy = {
        kind: [await _registered(server, f"{name}-{kind}-{number}@example.com", kind) for number in range(users)]
        for kind in (UNCHANGED, SIGNED_OUT, CHANGED, DISABLED)
    }
    emails = [tokens.email for each in of_copy.values() for tokens in each]
    await asyncio.to_thread(way.take, server.database, folder)
    held = [tokens for each in of_copy.values() for tokens in each] + await _lived(server, of_copy, name)
    epoch = 0
    for _ in range(copies):
        async with _load(server, emails[:users], seen) as obtained:
            await _put_back(server, way)
            ended = [tokens for tokens in held if tokens.kind != UNCHANGED]
            seen.let_in_before += sum(count > 0 for count in await _taken(server, ended))
            seen.held += len(ended)
            held += obtained
            seen.tried += len(held)
            result = await _restored(server, folder)
            returned = time.monotonic()
            seen.epochs += 1
            seen.epochs_that_fell += result <= epoch
            epoch = result
            seen.lives.append(await _last_let_in(server, held, returned))
            seen.accessed += sum(count > 0 for count in await _taken(server, held))
            seen.refreshed += await _refreshed(server, held)
        seen.newcomers += (await _signed_in(server, f"{name}-{NEWCOMER}-0@example.com", NEWCOMER)) is not None
        anew = [tokens for email in emails if (tokens := await _signed_in(server, email, UNCHANGED))]
        seen.signing_in += len(emails)
        seen.signed_in += sum(count == ASKED for count in await _taken(server, anew))
        held = anew + held


async def _lived(server: Server, of_copy: dict[str, list[Tokens]], name: str) -> list[Tokens]:
    """Lets things happen that the copy does not know of; return the tokens that are not of it."""
    later = []
    for tokens in of_copy[SIGNED_OUT]:
        answer = await server.ask("POST", "/api/auth/logout", token=tokens.access)
        assert answer.status_code == 200, answer.text
        later.append(await _signed_in(server, tokens.email, LATER))
    for tokens in of_copy[CHANGED]:
        body = {"current_password": PASSWORD, "new_password": "another horse battery"}
        answer = await server.ask("POST", "/api/auth/password/change", token=tokens.access, body=body)
        assert answer.status_code == 200, answer.text
    auth = Auth.from_settings(cheap_settings(server.database), features=())
    for tokens in of_copy[DISABLED]:
        user_id = UUID(jwt.decode(tokens.access, options={"verify_signature": False})["sub"])
        await auth.users.disable(user_id, source=OPERATOR)
    await auth.close()
    emails = [f"{name}-{NEWCOMER}-{number}@example.com" for number in range(len(of_copy[DISABLED]))]
    newcomers = [await _registered(server, email, NEWCOMER) for email in emails]
    return [tokens for tokens in later if tokens] + newcomers


@contextlib.asynccontextmanager
async def _load(server: Server, emails: Sequence[str], seen: Seen) -> AsyncIterator[list[Tokens]]:
    """Clients that sign in, ask and refresh while the block runs; the list has what they hold until `_restored`."""
    obtained: list[Tokens] = []
    is_over = False

    async def client(email: str) -> None:
        tokens: Tokens | None = None
        for turn in itertools.count():
            if is_over:
                return
            path = "/api/auth/token" if tokens is None or turn % 5 == 4 else "/api/dashboard"
            with contextlib.suppress(httpx2.HTTPError):
                if path == "/api/dashboard" and tokens is not None:
                    answer = await server.ask("GET", path, token=tokens.access)
                    tokens = tokens if answer.status_code in {200, 503} else None
                else:
                    answer = await _asked_for_tokens(server, email, tokens)
                    tokens = _tokens(answer, email, UNCHANGED)
                    obtained.extend([tokens] if tokens else [])
                seen.answers += 1
                seen.errors += answer.status_code == 500
            await asyncio.sleep(0.02)

    tasks = [asyncio.create_task(client(emails[number % len(emails)])) for number in range(LOAD_CLIENTS)]
    try:
        yield obtained
    finally:
        is_over = True
        await asyncio.gather(*tasks)


async def _put_back(server: Server, way: Way) -> None:
    if way.stops_servers:
        await asyncio.to_thread(server.stop)
    await asyncio.to_thread(way.put_back, server.database)
    if way.stops_servers:
        await asyncio.to_thread(server.start)
    deadline = time.monotonic() + HANG_SECONDS
    in_order = 0
    # Whichever worker is asked.
    while in_order < 8 and time.monotonic() < deadline:
        in_order = in_order + 1 if (await server.ask("GET", "/readyz")).status_code == 200 else 0
        await asyncio.sleep(0.05)
    assert in_order == 8, "the server is not ready"


async def _restored(server: Server, folder: Path) -> int:
    """Run the command; return the epoch."""
    variables = {**server.variables, "LATCHSTRING_DATABASE_URL": server.database, "LATCHSTRING_SECRET": SECRET}

    def work() -> int:
        done = latchstring("restored", "--yes", "--json", cwd=folder, variables=variables)
        assert done.returncode == 0, done.stderr
        epoch: int = json.loads(done.stdout)["epoch"]
        return epoch

    return await asyncio.to_thread(work)


async def _last_let_in(server: Server, held: Sequence[Tokens], returned: float) -> float:
    """Return how long after the command the last of a few tokens was let in; asks for twice the bound."""
    few, last = held[:USERS], returned
    while time.monotonic() < returned + 2 * BOUND_SECONDS:
        asked = time.monotonic()
        if any(await _taken(server, few)):
            last = max(last, asked)
    return last - returned


async def _taken(server: Server, held: Sequence[Tokens]) -> list[int]:
    """Return of each access token how often it was let in, of ASKED times."""

    async def times(tokens: Tokens) -> int:
        answers = [await server.ask("GET", "/api/dashboard", token=tokens.access) for _ in range(ASKED)]
        return sum(answer.status_code == 200 for answer in answers)

    return [count for batch in _batches(held) for count in await asyncio.gather(*map(times, batch))]


async def _refreshed(server: Server, held: Sequence[Tokens]) -> int:
    async def is_so(tokens: Tokens) -> bool:
        answer = await server.ask("POST", "/api/auth/refresh", token=tokens.refresh)
        return answer.status_code != 401

    return sum([answer for batch in _batches(held) for answer in await asyncio.gather(*map(is_so, batch))])


def _batches(held: Sequence[Tokens]) -> Iterator[Sequence[Tokens]]:
    for start in range(0, len(held), 16):
        yield held[start : start + 16]


async def _registered(server: Server, email: str, kind: str) -> Tokens:
    answer = await server.ask("POST", "/api/auth/register", body=registration(email))
    assert answer.status_code == 201, answer.text
    return Tokens(kind, email, answer.cookies["access_token"], answer.cookies["refresh_token"])


async def _signed_in(server: Server, email: str, kind: str) -> Tokens | None:
    answer = await server.ask("POST", "/api/auth/login", body=credentials(email))
    if answer.status_code != 200:
        return None
    return Tokens(kind, email, answer.cookies["access_token"], answer.cookies["refresh_token"])


async def _asked_for_tokens(server: Server, email: str, tokens: Tokens | None) -> httpx2.Response:
    if tokens is None:
        return await server.ask("POST", "/api/auth/login", body=credentials(email))
    return await server.ask("POST", "/api/auth/refresh", token=tokens.refresh)


def _tokens(answer: httpx2.Response, email: str, kind: str) -> Tokens | None:
    if answer.status_code != 200 or "access_token" not in answer.cookies:
        return None
    return Tokens(kind, email, answer.cookies["access_token"], answer.cookies["refresh_token"])


if __name__ == "__main__":
    sys.exit(main(drill, rounds=6))
