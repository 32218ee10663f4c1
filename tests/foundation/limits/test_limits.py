"""How often what may be tried: over HTTP, on both databases, with the clock turned by hand.

A guess counts by the account, whatever the spelling and the door, and by the network address. Most rates here are small
ones; `TestAtOnce` has two workers, and counts in the audit trail what was really checked.
"""

import asyncio
import contextlib
import math
import sqlite3
import unicodedata
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import httpx2
import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from psycopg import sql
from sqlalchemy.engine import make_url

from latchstring import Settings
from latchstring.core.sessions.tables import sessions
from latchstring.foundation.audit import audit
from latchstring.foundation.events import OPERATOR, SignInRefused
from latchstring.foundation.limits import Rate, limits, prune_limits
from latchstring.foundation.limits.tables import slots
from tests.support.backends import ON_SQLITE, on_both_once
from tests.support.hashes import hashing, held_hashes, idle
from tests.support.postgres import Postgres
from tests.support.service import (
    ADDRESS,
    PASSWORD,
    Service,
    cheap_settings,
    credentials,
    quiet_service,
    registration,
    running_service,
)

WRONG = "wrong horse battery"
NEW = "another horse battery"
EMAIL = "ada@example.com"
HOME, ELSEWHERE = "192.0.2.1", "198.51.100.7"
MINUTE = 60.0
WINDOW = 15 * MINUTE
ACCOUNT = 3
"""The rate of an account, in most of the tests."""

Door = Callable[[httpx2.AsyncClient, str, str], Coroutine[Any, Any, httpx2.Response]]


async def log_in(browser: httpx2.AsyncClient, email: str, password: str) -> httpx2.Response:
    """Tries a password at the login."""
    return await browser.post("/api/auth/login", json=credentials(email, password))


async def ask_for_tokens(browser: httpx2.AsyncClient, email: str, password: str) -> httpx2.Response:
    """Tries it at the token endpoint."""
    form = {"grant_type": "password", "username": email, "password": password}
    return await browser.post("/api/auth/token", data=form)


async def confirm(browser: httpx2.AsyncClient, _email: str, password: str) -> httpx2.Response:
    """Tries the caller's own where a fresh proof is asked for."""
    return await browser.post("/api/auth/confirm", json={"password": password})


async def change(browser: httpx2.AsyncClient, _email: str, password: str) -> httpx2.Response:
    """Tries it where a new one is set."""
    return await browser.post("/api/auth/password/change", json={"current_password": password, "new_password": NEW})


DOORS: dict[str, Door] = {"login": log_in, "token": ask_for_tokens, "confirm": confirm, "change": change}


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Three failures for an account; as for the rest, no limit is met unless a test says so."""
    return cheap_settings(
        database_url,
        limits=True,
        limit_account=f"{ACCOUNT}/15m",
        limit_address="9999/15m",
        limit_register="9999/1h",
        limit_refresh="9999/1m",
    )


@contextlib.asynccontextmanager
async def worker(service: Service, **changes: object) -> AsyncIterator[Service]:
    """Runs another worker on the same database and clock, with other settings."""
    settings = Settings.model_validate(service.settings.model_dump() | changes)
    async with running_service(settings, service.clock) as running:
        yield running


def browser_at(
    service: Service, address: str | None = HOME, headers: dict[str, str] | None = None
) -> httpx2.AsyncClient:
    """Returns a browser that connects from a network address; None: from one that is not known, as a Unix socket's."""

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 -- ASGI
        client = None if address is None else (address, 50_000)
        await service.app({**scope, "client": client}, receive, send)

    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=ADDRESS, headers=headers)


async def signed_in(service: Service, email: str = EMAIL, address: str | None = HOME) -> httpx2.AsyncClient:
    """Returns a browser that has just registered."""
    browser = browser_at(service, address)
    answer = await browser.post("/api/auth/register", json=registration(email))
    assert answer.status_code == 201, answer.text
    return browser


class Heard(NamedTuple):
    """An answer, as far as it may differ."""

    status: int
    code: str | None

    @classmethod
    def of(cls, answer: httpx2.Response) -> "Heard":
        """Reads it."""
        return cls(answer.status_code, answer.json().get("code") if answer.content else None)


REFUSED = Heard(429, "too_many_requests")
CHECKED = Heard(400, "invalid_credentials")


async def assert_checked(answer: Awaitable[httpx2.Response]) -> None:
    """Sees that a wrong password was looked at."""
    assert Heard.of(await answer) == CHECKED


async def assert_refused(answer: Awaitable[httpx2.Response]) -> int:
    """Sees that nothing was looked at; returns how many seconds the client is told to wait."""
    heard = await answer
    assert Heard.of(heard) == REFUSED, heard.text
    assert "set-cookie" not in heard.headers
    seconds = int(heard.headers["retry-after"])
    assert seconds >= 1
    return seconds


async def use_up(browser: httpx2.AsyncClient, email: str = EMAIL, times: int = ACCOUNT) -> None:
    """Fails until the account is at its limit."""
    for _ in range(times):
        await assert_checked(log_in(browser, email, WRONG))


async def count(service: Service, table: sa.Table, *conditions: sa.ColumnElement[bool]) -> int:
    """Returns how many rows there are."""
    async with service.auth.parts.tools.database.reading() as connection:
        return await connection.scalar(sa.select(sa.func.count()).select_from(table).where(*conditions)) or 0


async def guesses_checked(service: Service) -> int:
    """Returns how many wrong passwords were compared with a hash, by the audit trail."""
    return await count(service, audit, audit.c.fact == SignInRefused.name)


# --- one account ------------------------------------------------------------------------------------------------------


class TestOneAccount:
    """So many failures in fifteen minutes, wherever and however they are tried."""

    @on_both_once("used_up_at", [*DOORS])
    async def test_every_door_has_the_same_count(self, used_up_at: str, service: Service) -> None:
        """CVE-2025-24806: failures at any one door close all of them, to the right password as well."""
        browser = await signed_in(service)
        for _ in range(ACCOUNT):
            await assert_checked(DOORS[used_up_at](browser, EMAIL, WRONG))
        for password in (PASSWORD, WRONG):
            for door in DOORS.values():
                assert await assert_refused(door(browser, EMAIL, password)) == WINDOW
        assert await guesses_checked(service) == ACCOUNT

    @ON_SQLITE
    async def test_a_door_for_each_guess(self, service: Service) -> None:
        """CVE-2025-24806: going from door to door gives no further guesses."""
        browser = await signed_in(service)
        for door in list(DOORS.values())[:ACCOUNT]:
            await assert_checked(door(browser, EMAIL, WRONG))
        for door in DOORS.values():
            await assert_refused(door(browser, EMAIL, WRONG))

    @ON_SQLITE
    async def test_every_spelling_has_the_same_count(self, service: Service) -> None:
        """CVE-2025-24806: whoever writes the address another way each time guesses at the same account."""
        email = "jos\u00e9.ada@b\u00fccher.example"
        browser = await signed_in(service, email)
        spellings = [
            email,
            email.upper().replace("\u00c9", "\u00e9"),
            f"  {email}\t",
            unicodedata.normalize("NFD", email),
            "jos\u00e9.ada@xn--bcher-kva.example",
            "JOS\u00e9.ADA@XN--BCHER-KVA.EXAMPLE",
            "jos\u00e9.ada@b\u00fccher.\uff45xample",
        ]
        async with worker(service, limit_account=f"{len(spellings)}/15m") as generous:
            browser = browser_at(generous)
            for number, spelling in enumerate(spellings):
                await assert_checked((log_in, ask_for_tokens)[number % 2](browser, spelling, WRONG))
            for spelling in spellings:
                await assert_refused(log_in(browser, spelling, WRONG))
                await assert_refused(ask_for_tokens(browser, spelling, PASSWORD))

    @ON_SQLITE
    async def test_from_everywhere(self, service: Service) -> None:
        """A guess from another network address each time is one at the same account."""
        await signed_in(service)
        for number in range(ACCOUNT):
            await assert_checked(log_in(browser_at(service, f"203.0.113.{number}"), EMAIL, WRONG))
        await assert_refused(log_in(browser_at(service, "203.0.113.200"), EMAIL, PASSWORD))

    @ON_SQLITE
    async def test_an_address_nobody_has_is_limited_like_any_other(self, service: Service) -> None:
        """All answers, headers and waits are the same for a user's address, a disabled user's and nobody's."""
        await signed_in(service)
        disabled = await signed_in(service, "disabled@example.com")
        user_id = UUID((await disabled.get("/api/auth/me")).json()["id"])
        await service.auth.users.disable(user_id, source=OPERATOR)
        heard = []
        for email in (EMAIL, "nobody@example.com", "disabled@example.com"):
            browser = browser_at(service)
            answers = [await door(browser, email, WRONG) for door in (log_in, ask_for_tokens) * ACCOUNT]
            for answer in answers:
                answer.headers.pop("x-request-id", None)
            heard.append(
                [
                    (answer.status_code, sorted(answer.headers.items()), answer.json() | {"request_id": None})
                    for answer in answers
                ]
            )
        assert [status for status, *_ in heard[0]] == [400] * ACCOUNT + [429] * ACCOUNT
        assert heard[0] == heard[1] == heard[2]

    @on_both_once("door", [*DOORS])
    async def test_a_success_gives_back_its_own_place_only(self, door: str, service: Service) -> None:
        """A success resets (allauth 65.8.1): what an attacker has used up stays used up when the owner signs in."""
        owner, attacker = await signed_in(service), browser_at(service, ELSEWHERE)
        await use_up(attacker, times=ACCOUNT - 1)
        before = await count(service, slots)
        password = PASSWORD
        for _ in range(5):
            answer = await DOORS[door](owner, EMAIL, password)
            assert answer.is_success, answer.text
            if door == "change":
                answer = await owner.post(
                    "/api/auth/password/change", json={"current_password": NEW, "new_password": PASSWORD}
                )
                assert answer.is_success, answer.text
        assert await count(service, slots) == before
        await assert_checked(log_in(attacker, EMAIL, WRONG))
        await assert_refused(log_in(attacker, EMAIL, WRONG))
        await assert_refused(DOORS[door](owner, EMAIL, password))

    @ON_SQLITE
    async def test_successes_are_never_too_many(self, service: Service) -> None:
        """Whoever knows the password signs in as often as they like."""
        browser = await signed_in(service)
        answers = [await log_in(browser, EMAIL, PASSWORD) for _ in range(4 * ACCOUNT)]
        assert {answer.status_code for answer in answers} == {200}
        assert await count(service, slots) == 1, "the registration's"

    @ON_SQLITE
    async def test_a_right_password_that_opens_nothing_is_a_failure(self, service: Service) -> None:
        """A disabled user's right password is told apart from a wrong one by no count."""
        browser = await signed_in(service)
        user_id = UUID((await browser.get("/api/auth/me")).json()["id"])
        await service.auth.users.disable(user_id, source=OPERATOR)
        for _ in range(ACCOUNT):
            await assert_checked(log_in(browser, EMAIL, PASSWORD))
        await assert_refused(log_in(browser, EMAIL, PASSWORD))

    @ON_SQLITE
    async def test_nobody_is_signed_out_by_somebodys_guesses(self, service: Service) -> None:
        """GHSA-cq42, lock-out as denial of service: whoever is signed in goes on, and refreshes, for hours."""
        owner = await signed_in(service)
        app = (await ask_for_tokens(browser_at(service), EMAIL, PASSWORD)).json()
        attacker = browser_at(service, ELSEWHERE)
        for _ in range(8):
            await use_up(attacker)
            for _ in range(3):
                await assert_refused(log_in(attacker, EMAIL, WRONG))
                for path in ("/api/dashboard", "/api/auth/me", "/api/auth/sessions"):
                    assert (await owner.get(path)).status_code == 200
                assert (await owner.post("/api/auth/refresh")).status_code == 200
                form = {"grant_type": "refresh_token", "refresh_token": app["refresh_token"]}
                answer = await browser_at(service).post("/api/auth/token", data=form)
                assert answer.status_code == 200, answer.text
                app = answer.json()
                shown = {"Authorization": f"Bearer {app['access_token']}"}
                assert (await browser_at(service).get("/api/dashboard", headers=shown)).status_code == 200
                service.clock.advance(minutes=5)
        assert (await owner.post("/api/auth/logout")).status_code == 200

    @ON_SQLITE
    async def test_nobody_else_is_kept_out(self, service: Service) -> None:
        """One account at its limit, and hundreds of tries beyond it, cost neither another account nor the address."""
        browser = await signed_in(service)
        await use_up(browser)
        async with worker(service, limit_address=f"{ACCOUNT + 1}/15m") as strict:
            for _ in range(20):
                await assert_refused(log_in(browser_at(strict), EMAIL, WRONG))
            await assert_checked(log_in(browser_at(strict), "grace@example.com", WRONG))

    @ON_SQLITE
    async def test_refused_tries_take_no_place(self, service: Service) -> None:
        """Hammering on keeps nobody out for longer: the door opens fifteen minutes after the failures that counted."""
        browser = await signed_in(service)
        await use_up(browser)
        stored = await count(service, slots)
        for minute in range(15):
            assert await assert_refused(log_in(browser, EMAIL, PASSWORD)) == (15 - minute) * MINUTE
            service.clock.advance(minutes=1)
        assert await count(service, slots) == stored
        assert (await log_in(browser, EMAIL, PASSWORD)).status_code == 200

    async def test_retry_after_tells_the_truth(self, service: Service) -> None:
        """Having waited as told, a client has one more try; a moment before it has none."""
        browser = await signed_in(service)
        failures = deque[datetime]()
        for pause in (100.3, 200.25, 300.125):
            await assert_checked(log_in(browser, EMAIL, WRONG))
            failures.append(service.clock.now())
            service.clock.advance(seconds=pause)
        for _ in range(2 * ACCOUNT):
            wait = (failures.popleft() - service.clock.now()).total_seconds() + WINDOW
            assert await assert_refused(log_in(browser, EMAIL, PASSWORD)) == math.ceil(wait)
            service.clock.advance(seconds=wait - 0.001)
            assert await assert_refused(log_in(browser, EMAIL, PASSWORD)) == 1
            service.clock.advance(seconds=0.001)
            await assert_checked(log_in(browser, EMAIL, WRONG))
            failures.append(service.clock.now())
            await assert_refused(log_in(browser, EMAIL, WRONG))

    @ON_SQLITE
    async def test_retry_after_is_true_when_the_rate_was_lowered(self, service: Service) -> None:
        """Where more places are taken than the rate now has, since it was lowered, the wait is until one is free."""
        browser = await signed_in(service)
        async with worker(service, limit_account="5/15m") as before:
            for _ in range(5):
                await assert_checked(log_in(browser_at(before), EMAIL, WRONG))
                service.clock.advance(minutes=1)
        told = await assert_refused(log_in(browser, EMAIL, WRONG))
        service.clock.advance(seconds=told - 0.001)
        await assert_refused(log_in(browser, EMAIL, WRONG))
        service.clock.advance(seconds=0.001)
        await assert_checked(log_in(browser, EMAIL, WRONG))

    @ON_SQLITE
    @examples(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        tries=st.lists(
            st.tuples(
                st.one_of(
                    st.sampled_from([0.0, 0.001, WINDOW / 3, WINDOW / 2, WINDOW - 0.001, WINDOW]),
                    st.integers(0, int(WINDOW * 1000)).map(lambda milliseconds: milliseconds / 1000),
                ),
                st.booleans(),
            ),
            min_size=ACCOUNT + 1,
            max_size=12,
        )
    )
    async def test_the_windows_slide(self, service: Service, tries: list[tuple[float, bool]]) -> None:
        """In any fifteen minutes, wherever they begin, there are no more failures than the rate, and never fewer."""
        email = f"{uuid4()}@example.com"
        browser = await signed_in(service, email)
        window = Rate.parse("1/15m").window
        failures: list[datetime] = []
        for pause, is_right in tries:
            service.clock.advance(seconds=pause)
            now = service.clock.now()
            recent = [at for at in failures if at > now - window]
            answer = await log_in(browser, email, PASSWORD if is_right else WRONG)
            if len(recent) >= ACCOUNT:
                assert Heard.of(answer) == REFUSED
                wait = (recent[-ACCOUNT] + window - now).total_seconds()
                assert answer.headers["retry-after"] == str(max(math.ceil(wait), 1))
            elif is_right:
                assert answer.status_code == 200, answer.text
            else:
                assert Heard.of(answer) == CHECKED
                failures.append(now)
        for begin in failures:
            assert sum(begin <= at < begin + window for at in failures) <= ACCOUNT


# --- one network address ----------------------------------------------------------------------------------------------


def strangers(number: int = 5) -> list[str]:
    """Returns addresses that nobody has guessed at before."""
    return [f"{uuid4()}@example.com" for _ in range(number)]


class TestOneNetworkAddress:
    """So many failures in fifteen minutes from one place, at whichever accounts."""

    @pytest.fixture
    def settings(self, database_url: str) -> Settings:
        """Five failures for an address, and a proxy of ours at 10.0.0.1."""
        return cheap_settings(
            database_url,
            limits=True,
            limit_address="5/15m",
            limit_account="9999/15m",
            trusted_proxies="10.0.0.1, fd00::/8",
        )

    async def test_spraying_many_accounts(self, service: Service) -> None:
        """One password against every account comes to an end as well; another address is not concerned."""
        await signed_in(service)
        for email in strangers():
            await assert_checked(log_in(browser_at(service), email, WRONG))
        assert await assert_refused(log_in(browser_at(service), EMAIL, PASSWORD)) == WINDOW
        assert (await log_in(browser_at(service, ELSEWHERE), EMAIL, PASSWORD)).status_code == 200
        service.clock.advance(minutes=15)
        assert (await log_in(browser_at(service), EMAIL, PASSWORD)).status_code == 200

    async def test_signing_in_oneself_in_between(self, service: Service) -> None:
        """A success resets (allauth 65.8.1): an attacker gets no further guesses for signing in to an own account."""
        own = await signed_in(service, "mallory@example.com")
        for email in strangers(4):
            await assert_checked(log_in(own, email, WRONG))
            assert (await log_in(own, "mallory@example.com", PASSWORD)).status_code == 200
        await assert_checked(log_in(own, EMAIL, WRONG))
        await assert_refused(log_in(own, "mallory@example.com", PASSWORD))

    @ON_SQLITE
    async def test_a_try_refused_for_the_address_is_not_the_accounts(self, service: Service) -> None:
        """Whoever is refused for where they come from uses up nothing of the account they try."""
        await signed_in(service)
        for email in strangers():
            await assert_checked(log_in(browser_at(service), email, WRONG))
        async with worker(service, limit_account="1/15m") as strict:
            for _ in range(5):
                await assert_refused(log_in(browser_at(strict), EMAIL, WRONG))
            assert (await log_in(browser_at(strict, ELSEWHERE), EMAIL, PASSWORD)).status_code == 200

    async def test_where_both_are_full_the_longer_wait_is_told(self, service: Service) -> None:
        """Having waited as told, a client is not refused for the other window; asked a second after any other try."""
        async with worker(service, limit_account="1/15m") as strict:
            await assert_checked(log_in(browser_at(strict, ELSEWHERE), "early@example.com", WRONG))
            strict.clock.advance(minutes=5)
            for email in strangers():
                await assert_checked(log_in(browser_at(strict), email, WRONG))
            strict.clock.advance(minutes=5)
            await assert_checked(log_in(browser_at(strict, ELSEWHERE), "late@example.com", WRONG))
            strict.clock.advance(minutes=1)
            waits = (("early@example.com", 9), ("late@example.com", 14), ("nobody@example.com", 9))
            for seconds, (email, minutes) in enumerate(waits):
                assert await assert_refused(log_in(browser_at(strict), email, WRONG)) == minutes * MINUTE - seconds
                strict.clock.advance(seconds=1)

    @ON_SQLITE
    async def test_a_full_window_is_not_asked_about_again_for_a_second(self, service: Service) -> None:
        """A flood at a locked account waits for no lock and no connection that everybody else needs."""
        settings = Settings.model_validate(service.settings.model_dump() | {"limit_account": "1/15m"})
        async with quiet_service(settings, service.clock) as strict:
            await assert_checked(log_in(browser_at(strict), EMAIL, WRONG))
            statements: list[str] = []

            def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
                statements.append(statement)

            sa.event.listen(strict.auth.parts.tools.database.engine.sync_engine, "before_cursor_execute", note)
            for asked in (True, False, False):
                statements.clear()
                assert await assert_refused(log_in(browser_at(strict), EMAIL, WRONG)) == 15 * MINUTE
                assert bool(statements) is asked
            strict.clock.advance(seconds=1)
            await assert_refused(log_in(browser_at(strict), EMAIL, WRONG))
            assert statements

    @ON_SQLITE
    async def test_what_is_known_to_be_full_names_the_longer_wait(self, service: Service) -> None:
        """T38: where account and address are full, the one that frees later counts, asked again or remembered."""
        async with worker(service, limit_account="1/15m", limit_address="2/30m") as strict:
            for email in ("ada@example.com", "bob@example.com"):
                await assert_checked(log_in(browser_at(strict), email, WRONG))
            for _ in range(2):
                assert await assert_refused(log_in(browser_at(strict), "ada@example.com", WRONG)) == 30 * MINUTE

    @ON_SQLITE
    async def test_what_is_known_to_be_full_is_bounded(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        """T38: whoever floods with names of accounts fills windows, and not this process's memory."""
        monkeypatch.setattr(limits, "_MAX_FULL_WINDOWS", 3)
        async with worker(service, limit_account="1/15m", limit_address="9999/15m") as strict:
            for number in range(8):
                email = f"{number}@example.com"
                await assert_checked(log_in(browser_at(strict), email, WRONG))
                await assert_refused(log_in(browser_at(strict), email, WRONG))
                assert len(strict.auth.parts.tools.limits._full_windows) <= 3
            for number in range(8):
                await assert_refused(log_in(browser_at(strict), f"{number}@example.com", WRONG))

    @ON_SQLITE
    async def test_a_network_of_ipv6_is_one_address(self, service: Service) -> None:
        """GHSA-p6v2-xcpg-h6xw, IPv6 per address: the 2⁶⁴ addresses of a visitor are one; the next /64 is another."""
        of_one = [
            "2001:DB8:0:7::",
            "2001:db8:0:7::1",
            "2001:db8:0:7:1::",
            "2001:db8:0:7:8000::5",
            "2001:db8:0:7:a:b:c:d",
        ]
        for address, email in zip(of_one, strangers(), strict=True):
            await assert_checked(log_in(browser_at(service, address), email, WRONG))
        await assert_refused(log_in(browser_at(service, "2001:db8:0:7:ffff:ffff:ffff:ffff"), EMAIL, WRONG))
        await assert_checked(log_in(browser_at(service, "2001:db8:0:8::1"), EMAIL, WRONG))
        await assert_checked(log_in(browser_at(service, "2001:db8:0:6:ffff:ffff:ffff:ffff"), EMAIL, WRONG))

    @ON_SQLITE
    async def test_an_ipv4_address_written_as_ipv6(self, service: Service) -> None:
        """::ffff:192.0.2.1 is 192.0.2.1, and not one of a /64 that holds all of IPv4."""
        for number, email in enumerate(strangers()):
            address = (HOME, f"::ffff:{HOME}")[number % 2]
            await assert_checked(log_in(browser_at(service, address), email, WRONG))
        for address in (HOME, f"::ffff:{HOME}", "::ffff:c000:201"):
            await assert_refused(log_in(browser_at(service, address), EMAIL, WRONG))
        await assert_checked(log_in(browser_at(service, f"::ffff:{ELSEWHERE}"), EMAIL, WRONG))

    @ON_SQLITE
    async def test_what_a_stranger_says_of_itself_counts_for_nothing(self, service: Service) -> None:
        """Rate limit by X-Forwarded-For (allauth 65.14.2, better-auth 1.6.21): headers get nobody further guesses."""

        def forged(number: int) -> dict[str, str]:
            return {
                "X-Forwarded-For": f"203.0.113.{number}, 10.0.0.1",
                "Forwarded": f"for=203.0.113.{number}",
                "X-Real-IP": f"203.0.113.{number}",
                "X-Client-IP": f"203.0.113.{number}",
                "True-Client-IP": f"203.0.113.{number}",
                "CF-Connecting-IP": f"203.0.113.{number}",
            }

        for number, email in enumerate(strangers()):
            await assert_checked(log_in(browser_at(service, headers=forged(number)), email, WRONG))
        for number in range(5, 10):
            await assert_refused(log_in(browser_at(service, headers=forged(number)), EMAIL, WRONG))
        await assert_refused(log_in(browser_at(service), EMAIL, WRONG))

    @ON_SQLITE
    async def test_nobody_is_kept_out_in_somebody_elses_name(self, service: Service) -> None:
        """Rate limit by X-Forwarded-For: failures under a forged address are not that address's."""
        for email in strangers():
            await assert_checked(log_in(browser_at(service, headers={"X-Forwarded-For": ELSEWHERE}), email, WRONG))
        await assert_checked(log_in(browser_at(service, ELSEWHERE), EMAIL, WRONG))

    @ON_SQLITE
    async def test_behind_our_proxy_each_visitor_is_one(self, service: Service) -> None:
        """What our proxy saw counts, whatever the visitor wrote to the left of it; another visitor is another."""

        def through(visitor: str, forged: str) -> httpx2.AsyncClient:
            return browser_at(service, "10.0.0.1", {"X-Forwarded-For": f"{forged}, {visitor}"})

        for number, email in enumerate(strangers()):
            await assert_checked(log_in(through(HOME, f"203.0.113.{number}"), email, WRONG))
        await assert_refused(log_in(through(HOME, "203.0.113.99"), EMAIL, WRONG))
        await assert_refused(log_in(through(HOME, f"203.0.113.99, {ELSEWHERE}"), EMAIL, WRONG))
        await assert_refused(log_in(browser_at(service, HOME), EMAIL, WRONG))
        await assert_checked(log_in(through(ELSEWHERE, "203.0.113.0"), EMAIL, WRONG))

    @ON_SQLITE
    @pytest.mark.parametrize("line", ["", "unknown", "_hidden, unknown", "999.0.0.1", "203.0.113.5, nonsense"])
    async def test_a_visitor_our_proxy_does_not_name(self, line: str, service: Service) -> None:
        """With nothing to go by, the tries are the proxy's own: one address, and limited."""
        for email in strangers():
            await assert_checked(log_in(browser_at(service, "10.0.0.1", {"X-Forwarded-For": line}), email, WRONG))
        await assert_refused(log_in(browser_at(service, "10.0.0.1", {"X-Forwarded-For": line}), EMAIL, WRONG))

    @ON_SQLITE
    @pytest.mark.parametrize("address", [None, "", "a-unix-socket"])
    async def test_an_address_that_is_not_known_is_limited(self, address: str | None, service: Service) -> None:
        """Skipped when the IP is unknown (better-auth 2026-07): all whose address is unknown share one."""
        for number, email in enumerate(strangers()):
            browser = browser_at(service, address, {"X-Forwarded-For": f"203.0.113.{number}"})
            await assert_checked(log_in(browser, email, WRONG))
        await assert_refused(log_in(browser_at(service, address), EMAIL, WRONG))
        await assert_checked(log_in(browser_at(service), EMAIL, WRONG))


# --- registrations and refreshes --------------------------------------------------------------------------------------


async def test_registrations_from_one_address(service: Service) -> None:
    """So many an hour, refused ones included: whoever asks which addresses are taken is told about few of them."""
    async with worker(service, limit_register="3/1h") as strict:
        browser = browser_at(strict)
        heard = []
        for email in (EMAIL, EMAIL, "grace@example.com", "mary@example.com", EMAIL):
            heard.append(await browser_at(strict).post("/api/auth/register", json=registration(email)))
            strict.clock.advance(minutes=1)
        assert [answer.status_code for answer in heard] == [201, 409, 201, 429, 429]
        assert [answer.headers.get("retry-after") for answer in heard[3:]] == ["3420", "3360"]
        assert heard[3].json()["code"] == "too_many_requests"
        answer = await browser_at(strict, ELSEWHERE).post("/api/auth/register", json=registration("a@example.com"))
        assert answer.status_code == 201
        # Of one visitor's IPv6 addresses, too, all are one.
        answers = [
            await browser_at(strict, f"2001:db8::{number}").post(
                "/api/auth/register", json=registration(f"a{number}@example.com")
            )
            for number in range(4)
        ]
        assert [answer.status_code for answer in answers] == [201, 201, 201, 429]
        assert (await log_in(browser, EMAIL, PASSWORD)).status_code == 200, "signing in is counted by itself"
        strict.clock.advance(minutes=55)
        answer = await browser.post("/api/auth/register", json=registration("mary@example.com"))
        assert answer.status_code == 201
        answer = await browser.post("/api/auth/register", json=registration("mary2@example.com"))
        assert answer.status_code == 429, "the second place is not free yet"


class TestRefreshes:
    """A session may be refreshed so often a minute; what is beyond is put off, and costs nothing."""

    @pytest.fixture
    def settings(self, database_url: str) -> Settings:
        """Three a minute."""
        return cheap_settings(database_url, limits=True, limit_refresh="3/1m")

    async def test_too_many_and_the_session_goes_on(self, service: Service) -> None:
        """Beyond the rate it is 429, at each of the doors, until the time told; then the same token still serves."""
        browser = await signed_in(service)
        for _ in range(3):
            assert (await browser.post("/api/auth/refresh")).status_code == 200
            service.clock.advance(seconds=7)
        token = browser.cookies["refresh_token"]
        form = {"grant_type": "refresh_token", "refresh_token": token}
        assert await assert_refused(browser.post("/api/auth/refresh")) == 39
        assert await assert_refused(browser.get("/api/auth/refresh")) == 39
        answer = await browser_at(service).post("/api/auth/token", data=form)
        assert (answer.status_code, answer.json()["error"]) == (429, "temporarily_unavailable")
        assert answer.headers["retry-after"] == "39"
        assert (await browser.get("/api/dashboard")).status_code == 200
        service.clock.advance(seconds=38.999)
        assert await assert_refused(browser.post("/api/auth/refresh")) == 1
        service.clock.advance(seconds=0.001)
        assert browser.cookies["refresh_token"] == token
        assert (await browser.post("/api/auth/refresh")).status_code == 200

    async def test_repeated_answers_count(self, service: Service) -> None:
        """Asking for the same answer again and again is refreshing, too."""
        browser = await signed_in(service)
        old = browser.cookies["refresh_token"]
        shown = {"Authorization": f"Bearer {old}"}
        answers = [await browser_at(service).post("/api/auth/refresh", headers=shown) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]

    async def test_each_session_has_its_own(self, service: Service) -> None:
        """Two browsers of one user do not take each other's refreshes, and a refresh is no sign-in."""
        one = await signed_in(service)
        other = browser_at(service)
        await log_in(other, EMAIL, PASSWORD)
        for _ in range(3):
            assert (await one.post("/api/auth/refresh")).status_code == 200
        await assert_refused(one.post("/api/auth/refresh"))
        assert (await other.post("/api/auth/refresh")).status_code == 200
        assert (await log_in(one, EMAIL, PASSWORD)).status_code == 200
        assert (await one.post("/api/auth/refresh")).status_code == 200, "a new session begins anew"

    async def test_a_stolen_token_ends_the_session_all_the_same(self, service: Service) -> None:
        """At the limit, an old token is theft as ever: the limit hides no thief."""
        browser = await signed_in(service)
        stolen = browser.cookies["refresh_token"]
        for _ in range(3):
            assert (await browser.post("/api/auth/refresh")).status_code == 200
        answer = await browser_at(service).post("/api/auth/refresh", headers={"Authorization": f"Bearer {stolen}"})
        assert Heard.of(answer) == Heard(401, "refresh_token_reused")
        assert (await browser.post("/api/auth/refresh")).json()["code"] == "session_ended"

    async def test_at_once(self, service: Service) -> None:
        """Of thirty that come at the same instant to two workers, three are answered."""
        browser = await signed_in(service)
        shown = {"Authorization": f"Bearer {browser.cookies['refresh_token']}"}
        async with worker(service) as other:
            answers = await asyncio.gather(
                *(
                    browser_at((service, other)[number % 2]).post("/api/auth/refresh", headers=shown)
                    for number in range(30)
                )
            )
        assert Counter(answer.status_code for answer in answers) == {200: 3, 429: 27}
        async with service.auth.parts.tools.database.reading() as connection:
            assert await connection.scalar(sa.select(sessions.c.refreshes)) == 3


# --- at once ----------------------------------------------------------------------------------------------------------


class TestAtOnce:
    """The race past the limiter (better-auth 2026-07): places are taken one after the other, whoever asks."""

    @pytest.fixture
    async def workers(self, service: Service) -> AsyncIterator[list[Service]]:
        """Two workers on one database."""
        async with worker(service) as other:
            yield [service, other]

    async def test_guesses_at_one_account(self, workers: list[Service]) -> None:
        """Of sixty guesses at the same instant, from sixty addresses, through all doors, three are checked."""
        owner = await signed_in(workers[0])

        async def guess(number: int) -> httpx2.Response:
            door = list(DOORS.values())[number % 4]
            client = browser_at(workers[number // 4 % 2], f"203.0.113.{number}")
            client.cookies = owner.cookies
            return await door(client, EMAIL, f"{WRONG} {number}")

        answers = await asyncio.gather(*(guess(number) for number in range(60)))
        assert Counter(map(Heard.of, answers)) == {CHECKED: ACCOUNT, REFUSED: 60 - ACCOUNT}
        assert await guesses_checked(workers[0]) == ACCOUNT

    async def test_guesses_from_one_address(self, service: Service) -> None:
        """Of sixty guesses at sixty accounts at the same instant, from one /64, as many as the rate are checked."""
        async with worker(service, limit_address="7/15m") as one, worker(service, limit_address="7/15m") as other:

            async def guess(number: int) -> httpx2.Response:
                client = browser_at((one, other)[number % 2], f"2001:db8::{number + 1:x}")
                return await log_in(client, f"visitor{number}@example.com", WRONG)

            answers = await asyncio.gather(*(guess(number) for number in range(60)))
        assert Counter(map(Heard.of, answers)) == {CHECKED: 7, REFUSED: 53}
        assert await guesses_checked(service) == 7

    async def test_right_ones_among_them(self, workers: list[Service]) -> None:
        """Owner and attacker at the same instant: successes make no room for further guesses, and leave no trace."""
        await signed_in(workers[0])

        async def ask(number: int) -> httpx2.Response:
            client = browser_at(workers[number % 2])
            return await log_in(client, EMAIL, WRONG if number % 3 else PASSWORD)

        for _ in range(3):
            answers = await asyncio.gather(*(ask(number) for number in range(30)))
            assert {answer.status_code for answer in answers} <= {200, 400, 429}
        wrong = await guesses_checked(workers[0])
        assert wrong <= ACCOUNT
        now = workers[0].clock.now()
        assert await count(workers[0], slots) == 2 * wrong + 1, "two for each failure, and the registration's"
        assert await count(workers[0], slots, slots.c.expires_at <= now) == 0

    async def test_crossing_ways_never_deadlock(self, workers: list[Service]) -> None:
        """Many accounts from many addresses, each with each, at the same instant: everybody gets an answer."""
        answers = await asyncio.gather(
            *(
                log_in(browser_at(workers[(one + two) % 2], f"203.0.113.{one}"), f"visitor{two}@example.com", WRONG)
                for one in range(8)
                for two in range(8)
            )
        )
        assert Counter(map(Heard.of, answers)) == {CHECKED: 8 * ACCOUNT, REFUSED: 64 - 8 * ACCOUNT}


# --- when something breaks --------------------------------------------------------------------------------------------


class TestTriesThatDoNotEnd:
    """A try counts from before its hash, and only what was no try is given back."""

    @on_both_once("door", [*DOORS])
    async def test_hanging_up_is_no_way_around(self, door: str, service: Service) -> None:
        """A request that is cancelled while the hash runs has been counted."""
        client = await signed_in(service)
        for _ in range(ACCOUNT):
            with held_hashes():
                guess = asyncio.create_task(DOORS[door](client, EMAIL, WRONG))
                await hashing(service.auth.parts.tools.passwords)
                guess.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await guess
            await idle(service.auth.parts.tools.passwords)
        assert await guesses_checked(service) == 0, "they ended before they were cancelled: nothing was tested"
        await assert_refused(DOORS[door](client, EMAIL, PASSWORD))

    @ON_SQLITE
    async def test_a_full_queue_is_nobodys_failure(self, service: Service) -> None:
        """A try that was turned away unhashed, with 503, gives its places back: an overload locks nobody out."""
        owner = await signed_in(service)
        async with worker(service, password_hash_threads=1, password_hash_queue=0) as busy:
            client = browser_at(busy)
            client.cookies = owner.cookies
            stored = await count(service, slots)
            with held_hashes():
                occupied = asyncio.create_task(busy.auth.parts.tools.passwords.verify(WRONG, None))
                await hashing(busy.auth.parts.tools.passwords)
                for door in DOORS.values():
                    for password in (WRONG, PASSWORD):
                        answer = await door(client, EMAIL, password)
                        assert Heard.of(answer) == Heard(503, "hash_queue_full")
                        assert answer.headers["retry-after"]
            await occupied
            assert await count(service, slots) == stored
        assert (await log_in(owner, EMAIL, PASSWORD)).status_code == 200

    @ON_SQLITE
    async def test_a_queue_that_fills_before_the_new_password_is_hashed(self, service: Service) -> None:
        """A change whose second hash finds the queue full is no failure either: the password was right."""
        async with worker(service) as full:
            client = await signed_in(full)
            stored = await count(service, slots)
            with held_hashes():
                changing = asyncio.create_task(change(client, EMAIL, PASSWORD))
                await hashing(full.auth.parts.tools.passwords)
                full.auth.parts.tools.passwords._capacity = 0
            assert Heard.of(await changing) == Heard(503, "hash_queue_full")
            assert await count(service, slots) == stored

    @ON_SQLITE
    async def test_a_registration_that_finds_the_queue_full(self, service: Service) -> None:
        """Whoever was told to come again in a second may come again: 503 uses up no registration."""
        async with worker(service, password_hash_threads=1, password_hash_queue=0) as busy:
            with held_hashes():
                occupied = asyncio.create_task(busy.auth.parts.tools.passwords.verify(WRONG, None))
                await hashing(busy.auth.parts.tools.passwords)
                answer = await browser_at(busy).post("/api/auth/register", json=registration())
            assert Heard.of(answer) == Heard(503, "hash_queue_full")
            await occupied
        assert await count(service, slots) == 0

    @on_both_once("door", ["confirm", "change"])
    async def test_a_right_password_in_a_session_that_has_just_ended(self, door: str, service: Service) -> None:
        """Signing out while the proof is checked makes no failure of a right password."""
        client = await signed_in(service)
        stored = await count(service, slots)
        with held_hashes():
            proving = asyncio.create_task(DOORS[door](client, EMAIL, PASSWORD))
            await hashing(service.auth.parts.tools.passwords)
            other = browser_at(service)
            other.cookies = client.cookies
            assert (await other.post("/api/auth/logout")).status_code == 200
        assert Heard.of(await proving) == Heard(401, "session_ended")
        assert await count(service, slots) == stored


@contextlib.contextmanager
def away(url: str, postgres: Postgres | None) -> Iterator[None]:
    """Takes the database away: SQLite is locked by another process, PostgreSQL ends every connection."""
    if postgres is None:
        with contextlib.closing(sqlite3.connect(str(make_url(url).database), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")
        return
    name = make_url(url).database or ""
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    with psycopg.connect(postgres.url, autocommit=True) as other:
        other.execute(allow.format(sql.Identifier(name), sql.Literal(False)))  # noqa: FBT003 -- a value of SQL
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        yield
        other.execute(allow.format(sql.Identifier(name), sql.Literal(True)))  # noqa: FBT003 -- a value of SQL


@pytest.mark.usefixtures("as_shipped")
async def test_no_store_no_sign_in(
    service: Service, database_url: str, backend: str, request: pytest.FixtureRequest
) -> None:
    """With the database away nobody's password is checked, wrong or right: 503, and not a try without a limit."""
    await signed_in(service)
    postgres = request.getfixturevalue("postgres") if backend == "postgresql" else None
    with away(database_url, postgres):
        answers = await asyncio.gather(
            *(
                door(browser_at(service), EMAIL, password)
                for door in (log_in, ask_for_tokens)
                for password in (WRONG, PASSWORD)
                for _ in range(3)
            )
        )
        assert set(map(Heard.of, answers)) == {Heard(503, "database_unavailable")}
        assert all(answer.headers["retry-after"] for answer in answers)
    assert await guesses_checked(service) == 0
    await use_up(browser_at(service))
    await assert_refused(log_in(browser_at(service), EMAIL, PASSWORD))


# --- what is stored ---------------------------------------------------------------------------------------------------


class TestWhatIsStored:
    """A row for each place, with nothing in it that was typed, and only as long as it counts."""

    @ON_SQLITE
    async def test_nothing_that_was_typed(self, service: Service) -> None:
        """Neither an e-mail address, known or not, nor a network address, nor a password is in the table."""
        browser = await signed_in(service)
        await assert_checked(log_in(browser, EMAIL, WRONG))
        await assert_checked(log_in(browser, "Secret.Nobody@Example.com", WRONG))
        async with service.auth.parts.tools.database.reading() as connection:
            rows = [tuple(map(str, row)) for row in await connection.execute(sa.select(slots))]
        assert len(rows) == 5
        for part in ("ada", "nobody", "secret", "example", "@", "192.0", WRONG):
            assert not any(part in value.casefold() for row in rows for value in row[1:2]), part
        assert {len(key) for _, key, _ in rows} == {64}
        assert len({key for _, key, _ in rows}) == 4, "two accounts, one address, and its registrations"

    async def test_places_run_out_and_are_deleted(self, service: Service) -> None:
        """An unbounded store (better-auth 2026-07): what counts no more is deleted, a few rows at a time."""
        for number in range(3):
            await assert_checked(log_in(browser_at(service), f"visitor{number}@example.com", WRONG))
        service.clock.advance(minutes=10)
        await assert_checked(log_in(browser_at(service), EMAIL, WRONG))
        service.clock.advance(minutes=5)

        async def prune(most: int) -> int:
            async with service.auth.parts.tools.database.transaction() as connection:
                return await prune_limits(connection, now=service.clock.now(), most=most)

        assert await prune(4) == 0, "an instance whose clock is behind may count them yet"
        service.clock.advance(minutes=60)
        assert [await prune(4), await prune(4), await prune(4)] == [4, 2, 0]
        assert await count(service, slots) == 2
        service.clock.advance(minutes=10)
        assert await service.auth.parts.housekeeping.clean_up() == 2
        assert await count(service, slots) == 0

    @ON_SQLITE
    async def test_deleting_them_frees_nobody(self, service: Service) -> None:
        """A clean-up in the midst of an attack deletes nothing that counts."""
        await signed_in(service)
        await use_up(browser_at(service))
        service.clock.advance(minutes=14, seconds=59)
        await service.auth.parts.housekeeping.clean_up()
        assert await assert_refused(log_in(browser_at(service), EMAIL, WRONG)) == 1

    @ON_SQLITE
    async def test_it_does_not_grow_with_the_tries(self, service: Service) -> None:
        """An unbounded store: from one address, whatever it sends, there are no more rows than its rates allow."""
        async with worker(service, limit_address="4/15m", limit_register="2/1h") as strict:
            for number in range(20):
                await log_in(browser_at(strict), f"visitor{number}@example.com", WRONG)
                await browser_at(strict).post("/api/auth/register", json=registration(f"visitor{number}@example.com"))
        assert await count(service, slots) == 2 * 4 + 2


# --- switched off -----------------------------------------------------------------------------------------------------


@ON_SQLITE
async def test_off_lifts_all_of_them(service: Service) -> None:
    """With `limits` off nothing is counted, and nothing is refused."""
    async with worker(
        service, limits="off", limit_account="1/1h", limit_address="1/1h", limit_register="1/1h", limit_refresh="1/1h"
    ) as free:
        browser = await signed_in(free)
        await signed_in(free, "grace@example.com")
        for _ in range(12):
            for door in DOORS.values():
                await assert_checked(door(browser, EMAIL, WRONG))
        for _ in range(3):
            assert (await browser.post("/api/auth/refresh")).status_code == 200
        assert await count(free, slots) == 0
    async with worker(service, limit_account="1/1h") as strict:
        await assert_checked(log_in(browser_at(strict), EMAIL, WRONG))
        await assert_refused(log_in(browser_at(strict), EMAIL, WRONG))


@ON_SQLITE
async def test_a_rate_of_ten_is_ten(service: Service) -> None:
    """The rates as they come: ten failures an account, a hundred an address, twenty registrations, sixty refreshes."""
    unset = service.settings.model_dump(exclude={"limit_account", "limit_address", "limit_register", "limit_refresh"})
    async with running_service(Settings.model_validate(unset), service.clock) as usual:
        owner = await signed_in(usual)
        for number in range(10):
            for email in (EMAIL, *(f"visitor{number}-{other}@example.com" for other in range(9))):
                await assert_checked(log_in(browser_at(usual), email, WRONG))
        await assert_refused(log_in(browser_at(usual, ELSEWHERE), EMAIL, WRONG))
        await assert_refused(log_in(browser_at(usual), "nobody@example.com", WRONG))
        for number in range(19):
            await signed_in(usual, f"friend{number}@example.com")
        await assert_refused(browser_at(usual).post("/api/auth/register", json=registration("late@example.com")))
        for _ in range(60):
            assert (await owner.post("/api/auth/refresh")).status_code == 200
        await assert_refused(owner.post("/api/auth/refresh"))
