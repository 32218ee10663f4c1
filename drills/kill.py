"""What was answered survives `kill -9`: the whole server, and PostgreSQL itself, in the middle of a storm.

    .venv/bin/python drills/kill.py [--rounds N] [--database sqlite|postgresql]

In each round people register as fast as they can, and others, in two tabs each that ask at the same instant, refresh
as fast as they can. At a random moment every process of the server is killed. On PostgreSQL it is done once more with a
database of the drill's own that syncs every commit to the disk (fsync on): there PostgreSQL is killed, and the server a
moment later. Everything is started anew on the same data, and then

1. whoever's registration was answered with 201 signs in,
2. each refresher's row has the generation that was last answered, or, where the kill swallowed the last answer of both
   tabs, perhaps the next one,
3. the last refresh token that was answered gets a successor, and the same one when it is shown again,
4. the token before that one gets nothing any more: there is one living branch.
"""

import asyncio
import random
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # makes `drills` and `tests.support` importable

import httpx2
import jwt
import sqlalchemy as sa

from drills.ground import Figure, bearer, main, serving
from latchstring.core.accounts.tables import users
from latchstring.core.sessions import store
from latchstring.core.sessions.rules import Session
from latchstring.foundation.database import Database
from tests.support.hang import HANG_SECONDS
from tests.support.postgres import OwnPostgres
from tests.support.process import NO_TLS, ServerProcess
from tests.support.service import credentials, registration

LONG_GRACE = {"LATCHSTRING_REFRESH_GRACE_SECONDS": "600"}
"""However long the server takes to start again."""
REGISTERING = 10
REFRESHING = 8
AT_LEAST_MILLISECONDS = 300
AT_MOST_MILLISECONDS = 1_300
"""So long a storm lasts, from the first refresh on."""
SIGN_INS = 300
"""So many of a round's registrations sign in afterwards, chosen by chance, where there are more."""


@dataclass(kw_only=True)
class Person:
    """Somebody with two tabs, and what was answered to them."""

    tokens: list[str]
    """Every refresh token that was answered, in the order of generations."""
    is_unsure: bool = False
    """Neither tab has heard of a successor to the last one; there may be one all the same."""


@dataclass(kw_only=True)
class Storm:
    """What was answered before the kill, and what was not."""

    is_up: asyncio.Event = field(default_factory=asyncio.Event)
    """Somebody has refreshed."""
    has_registered: asyncio.Event = field(default_factory=asyncio.Event)
    registered: list[str] = field(default_factory=list)
    people: list[Person] = field(default_factory=list)
    refreshes: int = 0
    cut_off: int = 0
    busy: int = 0
    """503: not acknowledged."""
    wrong: list[str] = field(default_factory=list)
    """Any other answer, and two tabs that were told different things."""


@dataclass(kw_only=True)
class Tally:
    """What all rounds have shown."""

    storms: list[Storm] = field(default_factory=list)
    signed_in: int = 0
    lost_registrations: list[str] = field(default_factory=list)
    swallowed: int = 0
    """Last answers that nobody heard …"""
    swallowed_after_commit: int = 0
    """… and whose refresh was recorded all the same."""
    lost_refreshes: list[str] = field(default_factory=list)
    older_shown: int = 0
    second_branches: list[str] = field(default_factory=list)


def drill(url: str, *, rounds: int, workers: int = 2) -> list[Figure]:
    """Return what was lost."""
    figures = _kill_on(url, rounds=rounds, workers=workers)
    if not url.startswith("postgresql"):
        return figures
    return [*figures, *drill_database(rounds=rounds, workers=workers)]


def drill_database(*, rounds: int, workers: int = 2) -> list[Figure]:
    """Return what was lost where PostgreSQL was killed as well."""
    with OwnPostgres(fsync="on", full_page_writes="on", synchronous_commit="on") as postgres:
        url = postgres.create_database()
        figures = _kill_on(url, rounds=rounds, workers=workers, postgres=postgres)
    return [replace(figure, promise=f"PostgreSQL killed, fsync on: {figure.promise}") for figure in figures]


def _kill_on(url: str, *, rounds: int, workers: int, postgres: OwnPostgres | None = None) -> list[Figure]:
    tally = Tally()
    for _ in range(rounds):
        with serving(url, workers=workers, variables=LONG_GRACE) as server:
            storm = asyncio.run(_storm(server, postgres))
        if postgres is not None:
            postgres.start()
        with serving(url, workers=workers, variables=LONG_GRACE) as server:
            asyncio.run(_take_stock(server, url, storm, tally))
        tally.storms.append(storm)
    asyncio.run(_look_for_everybody(url, tally))
    return _figures(tally)


# --- the storm --------------------------------------------------------------------------------------------------------


async def _storm(server: ServerProcess, postgres: OwnPostgres | None) -> Storm:
    storm = Storm()
    async with asyncio.TaskGroup() as group:
        for _ in range(REGISTERING):
            group.create_task(_register_on(server, storm))
        for _ in range(REFRESHING):
            group.create_task(_refresh_on(server, storm))
        async with asyncio.timeout(HANG_SECONDS):
            await storm.is_up.wait()
            await storm.has_registered.wait()
        milliseconds = AT_LEAST_MILLISECONDS + secrets.randbelow(AT_MOST_MILLISECONDS - AT_LEAST_MILLISECONDS)
        await asyncio.sleep(milliseconds / 1000)
        # Before these return nobody here hears anything: they happen between two of the loop's turns.
        if postgres is not None:
            postgres.kill()
        server.kill()
    return storm


async def _register_on(server: ServerProcess, storm: Storm) -> None:
    async with _client(server) as client:
        while True:
            email = f"{secrets.token_hex(8)}@example.com"
            answer = await _ask(client, "/api/auth/register", json=registration(email))
            if answer is None:
                storm.cut_off += 1
                return
            if answer.status_code == 201:
                storm.registered.append(email)
                storm.has_registered.set()
            else:
                _note_failure(answer, storm)


async def _refresh_on(server: ServerProcess, storm: Storm) -> None:
    async with _client(server) as one, _client(server) as other:
        answer = await _ask(one, "/api/auth/register", json=registration(f"{secrets.token_hex(8)}@example.com"))
        if answer is None or answer.status_code != 201:
            return
        person = Person(tokens=[answer.cookies["refresh_token"]])
        storm.people.append(person)
        while True:
            tabs = [_ask(tab, "/api/auth/refresh", token=person.tokens[-1]) for tab in (one, other)]
            answers = [answer for answer in await asyncio.gather(*tabs) if answer is not None]
            successors = {answer.cookies["refresh_token"] for answer in answers if answer.status_code == 200}
            for answer in answers:
                if answer.status_code != 200:
                    _note_failure(answer, storm)
            if len(successors) > 1:
                storm.wrong.append("two tabs that refreshed at once got different tokens")
            person.tokens += sorted(successors, key=_generation)
            person.is_unsure = not successors
            storm.refreshes += sum(answer.status_code == 200 for answer in answers)
            if successors:
                storm.is_up.set()
            storm.cut_off += len(tabs) - len(answers)
            if len(answers) < len(tabs):
                return


def _note_failure(answer: httpx2.Response, storm: Storm) -> None:
    if answer.status_code == 503:
        storm.busy += 1
    else:
        storm.wrong.append(f"{answer.request.url.path} answered {answer.status_code} in the storm: {answer.text}")


# --- afterwards -------------------------------------------------------------------------------------------------------


async def _take_stock(server: ServerProcess, url: str, storm: Storm, tally: Tally) -> None:
    database = Database(url)
    try:
        # Sessions first: a successor whose answer was swallowed is given again within the grace alone.
        await asyncio.gather(*(_look_at_session(server, database, person, tally) for person in storm.people))
    finally:
        await database.close()
    chosen = random.sample(storm.registered, min(len(storm.registered), SIGN_INS))
    await asyncio.gather(*(_sign_in(server, chosen[first::REFRESHING], tally) for first in range(REFRESHING)))


async def _sign_in(server: ServerProcess, emails: Sequence[str], tally: Tally) -> None:
    async with _client(server) as client:
        for email in emails:
            answer = await _ask(client, "/api/auth/login", json=credentials(email))
            if answer is not None and answer.status_code == 200:
                tally.signed_in += 1
            else:
                tally.lost_registrations.append(email)


async def _look_at_session(server: ServerProcess, database: Database, person: Person, tally: Tally) -> None:
    newest = person.tokens[-1]
    heard = _generation(newest)
    row = await _row(database, newest)
    tally.swallowed += person.is_unsure
    if row is None or row.revoked_at is not None or row.generation < heard:
        tally.lost_refreshes.append(f"generation {heard} was answered, and the row is {row}")
        return
    if row.generation > heard + person.is_unsure:
        tally.second_branches.append(f"generation {heard} was the last that was answered, and the row is {row}")
    tally.swallowed_after_commit += row.generation > heard

    async with _client(server) as client:
        answers = [await _ask(client, "/api/auth/refresh", token=newest) for _ in range(2)]
        successors = [answer.cookies["refresh_token"] for answer in answers if answer and answer.status_code == 200]
        if len(successors) < len(answers):
            tally.lost_refreshes.append(f"generation {heard} gets no successor: {[_words(each) for each in answers]}")
            return
        row = await _row(database, newest)
        if len(set(successors)) > 1 or {_generation(successors[0])} != {heard + 1} or _moved(row, heard + 1):
            tally.second_branches.append(f"generation {heard} got {[*map(_generation, successors)]}, the row is {row}")
        if len(person.tokens) > 1:
            tally.older_shown += 1
            copied = await _ask(client, "/api/auth/refresh", token=person.tokens[-2])
            if not _is_refused(copied, "refresh_token_reused"):
                tally.second_branches.append(f"generation {heard - 1} was shown late: {_words(copied)}")
            after = await _ask(client, "/api/auth/refresh", token=successors[0])
            if not _is_refused(after, "session_ended"):
                tally.second_branches.append(f"generation {heard + 1} outlived the reuse: {_words(after)}")


async def _look_for_everybody(url: str, tally: Tally) -> None:
    """Find every registration of every round in the table: later kills have taken nobody either."""
    database = Database(url)
    try:
        async with database.reading() as connection:
            present = set(await connection.scalars(sa.select(users.c.email)))
    finally:
        await database.close()
    for storm in tally.storms:
        tally.lost_registrations += sorted(set(storm.registered) - present)


async def _row(database: Database, token: str) -> Session | None:
    claims = _claims(token)
    async with database.reading() as connection:
        found = await store.session_of_user(connection, UUID(claims["sid"]), user_id=UUID(claims["sub"]))
    return found[0] if found else None


def _is_refused(answer: httpx2.Response | None, code: str) -> bool:
    return answer is not None and answer.status_code == 401 and answer.json()["code"] == code


def _moved(row: Session | None, generation: int) -> bool:
    return row is None or row.generation != generation


def _figures(tally: Tally) -> list[Figure]:
    registered = sum(len(storm.registered) for storm in tally.storms)
    refreshes = sum(storm.refreshes for storm in tally.storms)
    sessions = sum(len(storm.people) for storm in tally.storms)
    cut_off = [storm.cut_off for storm in tally.storms]
    wrong = [what for storm in tally.storms for what in storm.wrong]
    busy = sum(storm.busy for storm in tally.storms)
    for what in (*tally.lost_registrations, *tally.lost_refreshes, *tally.second_branches, *wrong):
        print(what, file=sys.stderr)
    return [
        Figure(
            "a registration that was answered is there after kill -9, and signs in",
            f"{registered} answered, {tally.signed_in} of them signed in again, {len(tally.lost_registrations)} lost",
            is_kept=registered > 0 and tally.signed_in > 0 and not tally.lost_registrations,
        ),
        Figure(
            "a refresh that was answered is there, and goes on from there",
            f"{refreshes} answered in {sessions} sessions, {len(tally.lost_refreshes)} lost; {tally.swallowed} last "
            f"answers were swallowed, {tally.swallowed_after_commit} of them after the commit",
            is_kept=refreshes > 0 and not tally.lost_refreshes,
        ),
        Figure(
            "a session has one living branch",
            f"{tally.older_shown} older tokens shown, {len(tally.second_branches)} second branches",
            is_kept=tally.older_shown > 0 and not tally.second_branches,
        ),
        Figure(
            "each kill falls into the middle, and until then nobody is told anything wrong",
            f"{sum(cut_off)} requests cut off, {min(cut_off)} at least in a round; {busy} told to wait (503), "
            f"{len(wrong)} told something wrong",
            is_kept=min(cut_off) > 0 and not wrong,
        ),
    ]


# --- asking -----------------------------------------------------------------------------------------------------------


def _client(server: ServerProcess) -> httpx2.AsyncClient:
    limits = httpx2.Limits(max_connections=1)
    return httpx2.AsyncClient(base_url=server.url, timeout=HANG_SECONDS, limits=limits, verify=NO_TLS)


async def _ask(
    client: httpx2.AsyncClient, path: str, *, token: str | None = None, json: object | None = None
) -> httpx2.Response | None:
    """Return the answer; None when the connection ended before there was one."""
    client.cookies.clear()
    try:
        return await client.post(path, headers=bearer(token) if token else None, json=json)
    except httpx2.TransportError:
        return None


def _claims(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


def _generation(token: str) -> int:
    return int(_claims(token)["gen"])


def _words(answer: httpx2.Response | None) -> str:
    return "no answer" if answer is None else f"{answer.status_code} {answer.text}"


if __name__ == "__main__":
    sys.exit(main(drill, rounds=20))
