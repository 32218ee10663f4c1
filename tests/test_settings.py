"""Every setting bites, and one that is weak or contradicts another refuses to start.

A row of `BITES` sets one variable, starts a worker, and looks at what it does. The same look without the variable
must show something else: a setting that nobody reads can't pass.
"""

import asyncio
import base64
import os
import re
import shutil
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from http.cookies import SimpleCookie
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx2
import jwt
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pydantic import ValidationError

from latchstring import DEFAULT_FEATURES, Auth, ConfigurationError, LatchstringError, Settings
from latchstring.apps.data_directory import prepare_data_directory
from latchstring.apps.environment import settings_from
from latchstring.apps.metrics import start_metrics
from latchstring.apps.server import prepare
from latchstring.core.sessions.tables import sessions
from latchstring.features.password.tables import passwords
from latchstring.foundation.audit import audit
from latchstring.testing import ManualClock
from tests.support.connected import serving
from tests.support.hang import until
from tests.support.metrics import scraped
from tests.support.pages import title
from tests.support.postgres import Postgres
from tests.support.process import NO_TLS
from tests.support.service import (
    ADDRESS,
    SECRET,
    Service,
    cheap_settings,
    credentials,
    registration,
    running_service,
)

POSTGRES = ("USER", "PASSWORD", "SERVER", "PORT", "DB")
CHEAP = {"LATCHSTRING_PASSWORD_HASH_MEMORY_KIB": "8", "LATCHSTRING_PASSWORD_HASH_PASSES": "1"}
# Long enough that every sign-in sent at once arrives before the first has been hashed.
SLOW = {"LATCHSTRING_PASSWORD_HASH_MEMORY_KIB": "65536", "LATCHSTRING_PASSWORD_HASH_PASSES": "2"}
UNREACHABLE = "255.255.255.255"  # the broadcast address: a TCP connection to it is refused at once, anywhere

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
KEYS: Mapping[str, Callable[[], PrivateKey]] = {
    "ours": cache(lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048)),
    "other": cache(lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048)),
    "weak": cache(lambda: rsa.generate_private_key(public_exponent=65537, key_size=1024)),  # noqa: S505 -- to be refused
    "curve": cache(lambda: ec.generate_private_key(ec.SECP256R1())),
    "odd curve": cache(lambda: ec.generate_private_key(ec.SECP384R1())),
}


def filled(variables: Mapping[str, str], known: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """Returns `variables` with `<NAME>` out of `known`, and `<private ours>` as base64 of that key's PEM."""

    def value_of(place: re.Match[str]) -> str:
        kind, _, name = place[1].partition(" ")
        return pem_of(KEYS[name](), kind) if name else known[kind]

    return {name: re.sub(r"<([A-Za-z ]+)>", value_of, value) for name, value in variables.items()}


def pem_of(key: PrivateKey, kind: str) -> str:
    pem = (
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        if kind == "private"
        else key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return base64.b64encode(pem).decode()


# --- looks at a worker -----------------------------------------------------------------------------------------------


def cookies_of(answer: httpx2.Response) -> SimpleCookie:
    cookies = SimpleCookie()
    for line in answer.headers.get_list("set-cookie"):
        cookies.load(line)
    return cookies


async def token_of(service: Service, kind: str = "access") -> str:
    cookies = dict((await service.registered()).cookies)
    return next(value for name, value in cookies.items() if name.endswith(f"{kind}_token"))


def said_by(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


async def access_seconds(service: Service) -> int:
    claims = said_by(await token_of(service))
    return int(claims["exp"]) - int(claims["iat"])


async def refresh_seconds(service: Service) -> int:
    claims = said_by(await token_of(service, "refresh"))
    return int(claims["exp"]) - int(claims["iat"])


async def refresh_seconds_after_fifty_minutes(service: Service) -> int:
    browser = await service.registered()
    service.clock.advance(minutes=50)
    assert (await browser.post("/api/auth/refresh")).status_code == 200
    claims = said_by(browser.cookies["refresh_token"])
    return int(claims["exp"]) - int(claims["iat"])


async def answer_to_a_repeated_refresh(service: Service) -> int:
    browser = await service.registered()
    first = browser.cookies["refresh_token"]
    again = service.browser(headers={"Cookie": f"refresh_token={first}"})
    assert (await browser.post("/api/auth/refresh")).status_code == 200
    return (await again.post("/api/auth/refresh")).status_code


async def answer_to_a_refresh_repeated_elsewhere(service: Service) -> int:
    browser = await service.registered()
    headers = {"Cookie": f"refresh_token={browser.cookies['refresh_token']}", "User-Agent": "another browser"}
    assert (await browser.post("/api/auth/refresh")).status_code == 200
    return (await service.browser(headers=headers).post("/api/auth/refresh")).status_code


async def prepared_statements(service: Service) -> int:
    count = sa.text("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT 1%'")
    async with service.auth.parts.tools.database.reading() as connection:
        for _ in range(8):  # psycopg prepares what is sent for the sixth time
            await connection.scalar(sa.select(1))
        return int(await connection.scalar(count))


async def answer_after_eight_blind_seconds(service: Service) -> int:
    browser = await service.registered()
    service.clock.suspend(seconds=8)
    return (await browser.get("/api/dashboard")).status_code


async def living_sessions_after_three_sign_ins(service: Service) -> int:
    await service.registered()
    browsers = [service.browser() for _ in range(2)]
    for browser in browsers:
        await browser.post("/api/auth/login", json=credentials())
    return len((await browsers[-1].get("/api/auth/sessions")).json())


async def sessions_kept_three_days_after_a_logout(service: Service) -> int:
    await (await service.registered()).post("/api/auth/logout")
    service.clock.advance(days=3)
    await service.auth.parts.housekeeping.clean_up()
    async with service.auth.parts.tools.database.reading() as connection:
        return int(await connection.scalar(sa.select(sa.func.count()).select_from(sessions)) or 0)


async def answer_to_an_old_proof(service: Service) -> tuple[int, str | None]:
    browser = await service.registered()
    service.clock.advance(minutes=2)
    answer = await browser.delete("/api/auth/sessions")
    return answer.status_code, answer.headers.get("www-authenticate", "").rpartition(" ")[2]


async def what_a_logout_asks_the_browser(service: Service) -> str | None:
    answer = await (await service.registered()).post("/api/auth/logout")
    assert answer.status_code == 200
    return answer.headers.get("clear-site-data")


async def answer_to_a_way_elsewhere(service: Service) -> int:
    elsewhere = {"next": "https://app.example.com/welcome"}
    return (await service.browser().get("/sign-in", params=elsewhere)).status_code


async def answer_to_the_sign_in_page(service: Service) -> int:
    return (await service.browser().get("/sign-in")).status_code


async def name_on_the_sign_in_page(service: Service) -> str:
    return title(await service.browser().get("/sign-in")).removeprefix("Sign in – ")


async def readiness_after_sigterm(service: Service) -> object:
    async with serving(service.app, drain_seconds=service.settings.shutdown_drain_seconds) as served:
        served.server.handle_exit(signal.SIGTERM, None)
        await until(lambda: served.server.lifespan.state or served.server.should_exit)
        if served.server.should_exit:
            return "stopped"
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{served.port}", verify=NO_TLS) as browser:
            answer = await browser.get("/readyz")
        return answer.status_code, answer.json()["draining"]


async def answers_to_wrong_passwords(service: Service, *emails: str) -> list[int]:
    wrong = [credentials(email, "not the password") for email in emails]
    return [(await service.browser().post("/api/auth/login", json=body)).status_code for body in wrong]


async def answers_to_three_guesses_at_one_account(service: Service) -> list[int]:
    return await answers_to_wrong_passwords(service, *["ada@example.com"] * 3)


async def answers_to_three_guesses_at_three_accounts(service: Service) -> list[int]:
    return await answers_to_wrong_passwords(service, *(f"{name}@example.com" for name in ("ada", "bob", "eve")))


async def answers_to_a_hundred_guesses(service: Service) -> set[int]:
    return set(await answers_to_wrong_passwords(service, *["ada@example.com"] * 100))


async def answers_to_two_registrations(service: Service) -> list[int]:
    bodies = [registration(f"{name}@example.com") for name in ("ada", "bob")]
    return [(await service.browser().post("/api/auth/register", json=body)).status_code for body in bodies]


async def answers_to_two_refreshes(service: Service) -> list[int]:
    browser = await service.registered()
    return [(await browser.post("/api/auth/refresh")).status_code for _ in range(2)]


async def audience(service: Service) -> str:
    return str(said_by(await token_of(service))["aud"])


async def face_to_the_web(service: Service) -> tuple[object, ...]:
    """Returns the issuer, the cookies' names, whether they are Secure, and the HSTS header."""
    answer = await service.browser().post("/api/auth/register", json=registration())
    cookies = cookies_of(answer)
    issuer = said_by(next(iter(cookies.values())).value)["iss"]
    secure = all(cookie["secure"] for cookie in cookies.values())
    return issuer, sorted(cookies), secure, answer.headers.get("strict-transport-security")


async def answer_to_another_front_end(service: Service) -> tuple[int, str | None]:
    browser = service.browser(headers={"Origin": "http://localhost:5173", "Sec-Fetch-Site": "same-site"})
    answer = await browser.post("/api/auth/register", json=registration())
    return answer.status_code, answer.headers.get("access-control-allow-origin")


async def recorded_address(service: Service) -> str | None:
    browser = service.browser(headers={"X-Forwarded-For": "203.0.113.9"})
    await browser.post("/api/auth/register", json=registration())
    return (await recorded_addresses(service))[0]


async def recorded_addresses(service: Service) -> tuple[str | None, str | None]:
    """Returns the address in the session's row and in the audit trail."""
    async with service.auth.parts.tools.database.reading() as connection:
        in_session = await connection.scalar(sa.select(sessions.c.address))
        in_audit = await connection.scalar(sa.select(audit.c.address).where(audit.c.session_id.is_not(None)))
    return in_session, in_audit


async def stored_hash_parameters(service: Service) -> str:
    await service.registered()
    async with service.auth.parts.tools.database.reading() as connection:
        return str(await connection.scalar(sa.select(passwords.c.password_hash))).split("$")[3]


async def answers_to_four_logins_at_once(service: Service) -> list[int]:
    answers = await asyncio.gather(
        *(service.browser().post("/api/auth/login", json=credentials()) for _ in range(4)),
    )
    return sorted(answer.status_code for answer in answers)


async def hashing_threads(service: Service) -> int:
    before = set(threading.enumerate())
    await answers_to_four_logins_at_once(service)
    return sum("hash" in thread.name for thread in set(threading.enumerate()) - before)


async def algorithm(service: Service) -> str:
    return str(jwt.get_unverified_header(await token_of(service))["alg"])


async def is_signed_with_ours(service: Service) -> bool:
    token, public = await token_of(service), KEYS["ours"]().public_key()
    try:
        jwt.decode(token, public, algorithms=["RS256"], audience="latchstring", leeway=10)
    except (jwt.InvalidAlgorithmError, jwt.InvalidSignatureError):
        return False
    return True


async def published_keys(service: Service) -> int:
    return len((await service.browser().get("/.well-known/jwks.json")).json()["keys"])


async def caching_of_the_keys(service: Service) -> str:
    return (await service.browser().get("/.well-known/jwks.json")).headers["cache-control"]


async def keys_after_two_days(service: Service) -> int:
    """Returns how many keys are published when a worker has looked after them two days later."""
    service.clock.advance(days=2)
    await service.auth.parts.keys.maintain()
    await service.auth.parts.core.feed.poll()
    return await published_keys(service)


async def file_of_the_database(service: Service) -> str:
    """Returns where the user who has just registered is found on disk, below the working folder."""
    await service.registered()
    async with service.auth.parts.tools.database.reading() as connection:
        row = (await connection.exec_driver_sql("PRAGMA database_list")).one()
    return str(Path(str(row.file)).relative_to(Path.cwd()))


async def answer_to_a_registration(service: Service) -> int:
    return (await service.browser().post("/api/auth/register", json=registration())).status_code


# --- the table -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bite:
    """With `value` a worker shows `expected`; without it, or with `otherwise` in its place, something else."""

    value: str
    look: Callable[[Service], Awaitable[object]]
    expected: object
    otherwise: str = ""
    beside: dict[str, str] = field(default_factory=dict)


OWN_HOME = {"LATCHSTRING_DATABASE_URL": "", "LATCHSTRING_JWT_ALGORITHM": "ES256"}
NEW_SECRET = "a new secret, as long as it has to be"
OTHER_SECRET = {"LATCHSTRING_SECRET": "yet another secret, as long as it has to be"}
OWN_KEY = {"LATCHSTRING_JWT_PRIVATE_KEY": "<private ours>"}
OWN_POSTGRES = {"LATCHSTRING_DATABASE_URL": ""} | {f"LATCHSTRING_POSTGRES_{name}": f"<{name}>" for name in POSTGRES}
PUBLIC_URL = "https://auth.example.com"
FRONT_END = "http://localhost:5173"


async def registrations_counted(service: Service) -> float:
    await service.registered()
    await service.auth.drained()
    return (await scraped(service.auth.metrics_app()))['latchstring_events_total{event="user.registered"}']


class _BoundError(Exception):
    """Somebody would listen now, at the address in the message."""


async def where_the_metrics_listen(service: Service) -> str:
    def bound(host: str, port: int) -> socket.socket:
        raise _BoundError(host)

    with pytest.raises(_BoundError) as seen:
        start_metrics(service.settings, bound)
    return str(seen.value)


async def workers_that_share_their_numbers(service: Service) -> int:
    await service.registered()
    return sum(name.endswith(".values") for _, _, names in os.walk("shared") for name in names)


BITES: dict[str, Bite] = {
    "access_token_expire_minutes": Bite("0.5", access_seconds, 30),
    "refresh_token_expire_minutes": Bite("30.5", refresh_seconds, 1830),
    "refresh_grace_seconds": Bite("0", answer_to_a_repeated_refresh, 401),
    "refresh_repeated_elsewhere": Bite("end", answer_to_a_refresh_repeated_elsewhere, 401),
    "session_max_days": Bite("0.05", refresh_seconds_after_fifty_minutes, (72 - 50) * 60),
    "sessions_per_user": Bite("2", living_sessions_after_three_sign_ins, 2),
    "session_keep_days": Bite("1", sessions_kept_three_days_after_a_logout, 0),
    "fresh_minutes": Bite("1.5", answer_to_an_old_proof, (401, 'max_age="90"')),
    "logout_clears_cache": Bite("on", what_a_logout_asks_the_browser, '"cache"'),
    "limits": Bite("off", answers_to_a_hundred_guesses, {400}),
    "limit_account": Bite("2/15m", answers_to_three_guesses_at_one_account, [400, 400, 429]),
    "limit_address": Bite("2/15m", answers_to_three_guesses_at_three_accounts, [400, 400, 429]),
    "limit_register": Bite("1/1h", answers_to_two_registrations, [201, 429]),
    "limit_refresh": Bite("1/1m", answers_to_two_refreshes, [200, 429]),
    "revocation_max_lag_seconds": Bite("10", answer_after_eight_blind_seconds, 200),
    "shutdown_drain_seconds": Bite("600", readiness_after_sigterm, (503, True), otherwise="0"),
    "audience": Bite("reports", audience, "reports"),
    "public_url": Bite(
        PUBLIC_URL,
        face_to_the_web,
        (PUBLIC_URL, ["__Host-access_token", "__Host-refresh_token"], True, "max-age=31536000"),
    ),
    "client_origin": Bite(FRONT_END, answer_to_another_front_end, (201, FRONT_END)),
    "return_urls": Bite("https://app.example.com/welcome", answer_to_a_way_elsewhere, 200),
    "pages": Bite("off", answer_to_the_sign_in_page, 404),
    "site_name": Bite("Acme", name_on_the_sign_in_page, "Acme"),
    "trusted_proxies": Bite("127.0.0.1", recorded_address, "203.0.113.9"),
    "password_hash_memory_kib": Bite("16", stored_hash_parameters, "m=16,t=1,p=1"),
    "password_hash_passes": Bite("3", stored_hash_parameters, "m=8,t=3,p=1"),
    "password_hash_lanes": Bite(
        "2", stored_hash_parameters, "m=32,t=1,p=2", beside={"LATCHSTRING_PASSWORD_HASH_MEMORY_KIB": "32"}
    ),
    "password_hash_threads": Bite("1", hashing_threads, 1, otherwise="2", beside=SLOW),
    "password_hash_queue": Bite(
        "1",
        answers_to_four_logins_at_once,
        [400, 400, 503, 503],
        beside=SLOW | {"LATCHSTRING_PASSWORD_HASH_THREADS": "1"},
    ),
    "jwt_algorithm": Bite("ES256", algorithm, "ES256", beside={"LATCHSTRING_DATABASE_URL": ""}),
    "jwt_private_key": Bite("<private ours>", is_signed_with_ours, expected=True),
    "jwt_public_key": Bite("<public ours>", answer_to_a_registration, 201, otherwise="<public other>", beside=OWN_KEY),
    "jwt_extra_public_keys": Bite("<public other>,<public curve>", published_keys, 3, beside=OWN_KEY),
    "jwks_max_age_seconds": Bite("7", caching_of_the_keys, "public, max-age=7"),
    "key_max_days": Bite("1", keys_after_two_days, 2, otherwise="0"),
    "previous_secret": Bite(SECRET, answer_to_a_registration, 201, otherwise=NEW_SECRET, beside=OTHER_SECRET),
    "metrics": Bite("on", registrations_counted, 1),
    "metrics_port": Bite("9464", registrations_counted, 1),
    "metrics_host": Bite("127.0.0.9", where_the_metrics_listen, "127.0.0.9", beside={"LATCHSTRING_METRICS_PORT": "1"}),
    "metrics_dir": Bite("shared", workers_that_share_their_numbers, 1),
    "data_dir": Bite("elsewhere", file_of_the_database, "elsewhere/latchstring.db", beside=OWN_HOME),
    "database_url": Bite("sqlite:///named.db", file_of_the_database, "named.db", beside=OWN_HOME),
    "database_prepared_statements": Bite("off", prepared_statements, 0, otherwise="auto", beside=OWN_POSTGRES),
    "secret": Bite(SECRET, answer_to_a_registration, 201, otherwise="another secret, as long as it has to be"),
    "postgres_user": Bite("<USER>", answer_to_a_registration, 201, otherwise="nobody", beside=OWN_POSTGRES),
    "postgres_password": Bite("<PASSWORD>", answer_to_a_registration, 201, otherwise="no", beside=OWN_POSTGRES),
    "postgres_server": Bite("<SERVER>", answer_to_a_registration, 201, otherwise=UNREACHABLE, beside=OWN_POSTGRES),
    "postgres_port": Bite("<PORT>", answer_to_a_registration, 201, otherwise="1", beside=OWN_POSTGRES),
    "postgres_db": Bite("<DB>", answer_to_a_registration, 201, otherwise="no_such", beside=OWN_POSTGRES),
}


def test_every_setting_has_a_row() -> None:
    """A setting added without a proof that it does something fails here."""
    assert BITES.keys() == Settings.model_fields.keys()


@pytest.fixture
def known(request: pytest.FixtureRequest, name: str) -> Iterator[dict[str, str]]:
    """The tutorial's five values of a database that is ready, where the setting under test needs it."""
    if BITES[name].beside is not OWN_POSTGRES:
        yield {}
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    url = postgres.create_database(template=request.getfixturevalue("postgres_template"))
    parts = urlsplit(url)
    values = (parts.username, unquote(parts.password or ""), parts.hostname, parts.port, parts.path[1:])
    yield {name: str(value) for name, value in zip(POSTGRES, values, strict=True)}
    postgres.drop_database(url)


@pytest.mark.parametrize("name", BITES)
async def test_every_setting_bites(
    name: str, known: dict[str, str], sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set by its LATCHSTRING_ variable, a setting changes what a visitor or an operator sees."""
    row = BITES[name]

    async def shown(folder: str, value: str) -> object:
        place = tmp_path / folder
        place.mkdir()
        monkeypatch.chdir(place)
        shutil.copy(sqlite_template, place / "prepared.db")
        base = CHEAP | {"LATCHSTRING_SECRET": SECRET, "LATCHSTRING_DATABASE_URL": "sqlite:///prepared.db"}
        variables = filled(base | row.beside | {f"LATCHSTRING_{name.upper()}": value}, known)
        try:
            settings = prepare_data_directory(settings_from(variables))
            if not variables.items() >= base.items():  # the copy is prepared already
                await prepare(settings)
            clock = ManualClock()
            clock.advance(seconds=1)  # it starts within this second, perhaps before the key that was made just now
            async with running_service(settings, clock) as service:
                return await row.look(service)
        except LatchstringError as error:
            return type(error).__name__

    assert await shown("with", row.value) == row.expected
    assert await shown("without", row.otherwise) != row.expected


# --- the visitor's address -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("198.51.100.7", ["203.0.113.9"], "198.51.100.7"),  # not a proxy of ours: its word counts nothing
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9"], "203.0.113.9"),  # the visitor wrote the left one
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9, 10.2.0.1"], "203.0.113.9"),  # two proxies of ours in a row
        ("10.0.0.1", ["1.1.1.1", "203.0.113.9"], "203.0.113.9"),  # two header lines are one list
        ("10.0.0.1", ["10.9.9.9, 203.0.113.9"], "203.0.113.9"),  # pretending to come from a proxy
        ("10.0.0.1", ["203.0.113.9, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9,"], "10.0.0.1"),
        ("10.0.0.1", ["10.3.0.1"], "10.3.0.1"),
        ("fd00::1", ["2001:DB8::9"], "2001:db8::9"),
        ("::ffff:10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),  # IPv4 on a socket that speaks both
        ("2001:db8::1", ["203.0.113.9"], "2001:db8::1"),
    ],
)
async def test_only_named_proxies_are_believed(
    peer: str, forwarded: list[str], address: str, sqlite_template: Path, tmp_path: Path
) -> None:
    """The address kept is the right-most one that no proxy of ours has (CVE-2023-41338: a limit by X-Forwarded-For)."""
    path = shutil.copy(sqlite_template, tmp_path / "latchstring.db")
    settings = cheap_settings(f"sqlite:///{path}", trusted_proxies="10.0.0.0/8, fd00::/8")
    async with running_service(settings) as service:
        transport = httpx2.ASGITransport(service.app, client=(peer, 1234))
        async with httpx2.AsyncClient(transport=transport, base_url=ADDRESS) as browser:
            headers = [("X-Forwarded-For", value) for value in forwarded] + [("Forwarded", "for=192.0.2.1")]
            await browser.post("/api/auth/register", json=registration(), headers=headers)
        assert await recorded_addresses(service) == (address, address)


# --- weak and contradictory settings ---------------------------------------------------------------------------------

NAMED = "LATCHSTRING_DATABASE_URL"
ACCESS, REFRESH = "ACCESS_TOKEN_EXPIRE_MINUTES", "REFRESH_TOKEN_EXPIRE_MINUTES"
PRIVATE, PUBLIC, EXTRA = "JWT_PRIVATE_KEY", "JWT_PUBLIC_KEY", "JWT_EXTRA_PUBLIC_KEYS"
FOUR_OF_FIVE = {f"POSTGRES_{name}": "5432" for name in POSTGRES[:-1]}

REFUSED: list[tuple[str, dict[str, str]]] = [
    ("LATCHSTRING_SECRET", {"LATCHSTRING_SECRET": "thirty-one characters, one less"}),
    ("LATCHSTRING_SECRET", {NAMED: "postgresql://ada@127.0.0.1:1/auth", "LATCHSTRING_SECRET": ""}),
    ("LATCHSTRING_SECRET", {**FOUR_OF_FIVE, "POSTGRES_DB": "auth", "LATCHSTRING_SECRET": ""}),
    ("POSTGRES_DB", FOUR_OF_FIVE),
    ("POSTGRES_PASSWORD", {"POSTGRES_USER": "ada"}),
    ("POSTGRES_PORT", {**FOUR_OF_FIVE, "POSTGRES_DB": "auth", "POSTGRES_PORT": "sixty-five"}),
    *[("JWT_ALGORITHM", {"JWT_ALGORITHM": value}) for value in ("HS256", "none", "RS512", "rs256!")],
    (PRIVATE, {PRIVATE: "<private weak>"}),
    (PRIVATE, {PRIVATE: "<private curve>"}),
    (PRIVATE, {PRIVATE: "<private odd curve>", "JWT_ALGORITHM": "ES256"}),
    (PRIVATE, {PRIVATE: "<public ours>"}),
    (PRIVATE, {PRIVATE: "bm8gcGVtIGF0IGFsbA=="}),
    (PRIVATE, {PRIVATE: "not base64 at all"}),
    (PRIVATE, {PUBLIC: "<public ours>"}),
    (PRIVATE, {EXTRA: "<public ours>"}),
    (PUBLIC, {PRIVATE: "<private ours>", PUBLIC: "<public other>"}),
    (PUBLIC, {PRIVATE: "<private ours>", PUBLIC: "<private ours>"}),
    (EXTRA, {PRIVATE: "<private ours>", EXTRA: "<private other>"}),
    (EXTRA, {PRIVATE: "<private ours>", EXTRA: "<public weak>"}),
    (EXTRA, {PRIVATE: "<private ours>", EXTRA: "<public other>,rubbish"}),
    (ACCESS, {ACCESS: "61"}),
    (REFRESH, {REFRESH: "1441", "LATCHSTRING_SESSION_MAX_DAYS": "1"}),
    *[(name, {name: value}) for name in (ACCESS, REFRESH) for value in ("0", "-15", "nan", "inf", "1e9", "soon")],
    (f"LATCHSTRING_{ACCESS}", {f"LATCHSTRING_{ACCESS}": "0.001"}),
    *[
        (name, {name: value})
        for name in ("LATCHSTRING_REFRESH_GRACE_SECONDS", "LATCHSTRING_REVOCATION_MAX_LAG_SECONDS")
        for value in ("-1", "nan", "inf", "3601")
    ],
    *[("LATCHSTRING_SESSION_MAX_DAYS", {"LATCHSTRING_SESSION_MAX_DAYS": value}) for value in ("0", "nan", "3651")],
    *[
        ("LATCHSTRING_SESSIONS_PER_USER", {"LATCHSTRING_SESSIONS_PER_USER": value})
        for value in ("0", "-1", "1.5", "10001", "unlimited")
    ],
    *[
        ("LATCHSTRING_SESSION_KEEP_DAYS", {"LATCHSTRING_SESSION_KEEP_DAYS": value})
        for value in ("-1", "nan", "inf", "3651", "for ever")
    ],
    *[
        ("LATCHSTRING_RETURN_URLS", {"LATCHSTRING_RETURN_URLS": value})
        for value in (
            "/somewhere",
            "shop.example.com",
            "http:///x",
            "javascript:alert(1)",
            "https://a@b/",
            "https://a/#b",
        )
    ],
    ("LATCHSTRING_SITE_NAME", {"LATCHSTRING_SITE_NAME": "x" * 61}),
    *[
        ("LATCHSTRING_FRESH_MINUTES", {"LATCHSTRING_FRESH_MINUTES": value})
        for value in ("0", "-1", "nan", "inf", "525601", "a while")
    ],
    *[
        (name, {name: value})
        for name in ("LATCHSTRING_LIMITS", "LATCHSTRING_LOGOUT_CLEARS_CACHE", "LATCHSTRING_PAGES")
        for value in ("perhaps", "2", "off and on")
    ],
    *[
        (name, {name: value})
        for name in (f"LATCHSTRING_LIMIT_{what}" for what in ("ACCOUNT", "ADDRESS", "REGISTER", "REFRESH"))
        for value in (
            *("ten", "10", "10/", "/15m", "10/15", "10/m", "15m", "off", "inf/15m", "10/infm", "10/nanm", "10/15d"),
            *(
                "0/15m",
                "00/15m",
                "10/0m",
                "10/0.000s",
                "-10/15m",
                "10/-15m",
                "+10/15m",
                "1.5/15m",
                "1e1/15m",
                "10/1e1m",
            ),
            *("10 per 15m", "10/15M", "10/15min", "10/15m/2", "10/15m, 20/1h", "10/1h30m", "10/1.5h", "10/.5h"),
            *("1234567890/15m", "10/1234567m"),
        )
    ],
    *[
        ("LATCHSTRING_PUBLIC_URL", {"LATCHSTRING_PUBLIC_URL": value})
        for value in (
            "http://auth.example.com",  # cookies in the clear
            "http://192.0.2.1:8000",
            "http://localhost.example.com",
            "https://auth.example.com/sign-in",
            "https://ada:lovelace@auth.example.com",
            "auth.example.com",
            "ftp://auth.example.com",
        )
    ],
    *[
        ("CLIENT_ORIGIN", {"CLIENT_ORIGIN": value})
        for value in (
            "https://app.example.com/path",
            "https://app.example.com?query",
            "https://*.example.com",
            "https://app.example.com:port",
            "*",
            "null",
        )
    ],
    ("CLIENT_ORIGIN", {"CLIENT_ORIGIN": "http://app.example.com", "LATCHSTRING_PUBLIC_URL": PUBLIC_URL}),
    *[
        ("LATCHSTRING_TRUSTED_PROXIES", {"LATCHSTRING_TRUSTED_PROXIES": value})
        for value in ("proxy.example.com", "10.0.0.0/33", "10.0.0.1;10.0.0.2", "*")
    ],
    *[
        (NAMED, {NAMED: value})
        for value in (
            "rubbish",
            "postgresql://ada:lovelace@127.0.0.1:port/auth",
            "postgresql://ada:lovelace@[::1/auth",
            "postgresql+unheard://ada:lovelace@127.0.0.1/auth",
            "postgresql+psycopg2://ada:lovelace@127.0.0.1/auth",  # a driver that blocks the event loop
            "mysql://ada:lovelace@127.0.0.1/auth",
            "unheard://ada:lovelace@127.0.0.1/auth",
        )
    ],
    *[
        (name, {name: value})
        for name in (
            "LATCHSTRING_PASSWORD_HASH_MEMORY_KIB",
            "LATCHSTRING_PASSWORD_HASH_PASSES",
            "LATCHSTRING_PASSWORD_HASH_LANES",
            "LATCHSTRING_PASSWORD_HASH_THREADS",
            "LATCHSTRING_PASSWORD_HASH_QUEUE",
        )
        for value in ("-7", "1.5", "999999999")
    ],
    ("LATCHSTRING_PASSWORD_HASH_MEMORY_KIB", {"LATCHSTRING_PASSWORD_HASH_LANES": "4", **CHEAP}),
    ("LATCHSTRING_AUDIENCE", {"LATCHSTRING_AUDIENCE": "a" * 256}),
]


@pytest.mark.parametrize(
    ("named", "variables"), REFUSED, ids=[f"{named}-{number}" for number, (named, _) in enumerate(REFUSED)]
)
async def test_weak_or_contradictory_settings_refuse_to_start(
    named: str, variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence names the variable and says what it must be, and never repeats what it was (CVE-2020-26250)."""
    monkeypatch.chdir(tmp_path)
    given = filled({"LATCHSTRING_SECRET": SECRET} | variables)
    with pytest.raises(ConfigurationError) as refusal:
        Auth.from_settings(prepare_data_directory(settings_from(given)), features=DEFAULT_FEATURES)
    sentence = str(refusal.value)
    assert named in sentence
    assert re.search(r"\b(must|should|takes)\b", sentence)
    assert "\n" not in sentence
    long_enough_to_tell = [value for value in given.values() if len(value) > 5]
    assert not any(value in sentence for value in [*long_enough_to_tell, "lovelace"])
    assert not (tmp_path / "latchstring-data" / "latchstring.db").exists()


@pytest.mark.parametrize(
    "variables",
    [
        {"LATCHSTRING_PUBLIC_URL": "http://localhost:8000"},
        {"LATCHSTRING_PUBLIC_URL": "http://127.8.9.1"},
        {"LATCHSTRING_PUBLIC_URL": "http://[::1]:8000"},
        {"LATCHSTRING_PUBLIC_URL": "HTTPS://Auth.Example.com:443/"},
        {"CLIENT_ORIGIN": "https://app.example.com", "LATCHSTRING_PUBLIC_URL": PUBLIC_URL},
        {"LATCHSTRING_TRUSTED_PROXIES": "10.0.0.1, 10.1.2.3/16 ,2001:db8::/32,"},
        {ACCESS: "60", REFRESH: "60"},
        {ACCESS: f"{1 / 60}"},
        {REFRESH: "1440", "LATCHSTRING_SESSION_MAX_DAYS": "1"},
        {"LATCHSTRING_SECRET": "exactly thirty-two characters ok"},
        {
            "LATCHSTRING_SESSIONS_PER_USER": "1",
            "LATCHSTRING_SESSION_KEEP_DAYS": "0",
            "LATCHSTRING_FRESH_MINUTES": "0.1",
        },
        {"LATCHSTRING_SESSIONS_PER_USER": "10000", "LATCHSTRING_FRESH_MINUTES": "525600"},
        {"LATCHSTRING_LIMITS": "OFF", "LATCHSTRING_LOGOUT_CLEARS_CACHE": "true"},
        {"LATCHSTRING_LIMIT_ACCOUNT": " 10 / 15 m ", "LATCHSTRING_LIMIT_ADDRESS": "1/1s"},
        {"LATCHSTRING_LIMIT_REGISTER": "999999999/999999h", "LATCHSTRING_LIMIT_REFRESH": "010/090m"},
        {PRIVATE: "<private ours>", "LATCHSTRING_SECRET": "", NAMED: "postgresql://ada@127.0.0.1:1/auth"},
        {PRIVATE: "<private curve>", PUBLIC: "<public curve>", EXTRA: "<public ours>", "JWT_ALGORITHM": "ES256"},
        *[
            {NAMED: f"{driver}://ada:lovelace@127.0.0.1:1/auth"}
            for driver in ("postgres", "postgresql", "postgresql+psycopg", "postgresql+asyncpg")
        ],
    ],
    ids=str,
)
async def test_what_stands_at_the_edge_of_a_rule_is_taken(
    variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rules above refuse no more than they say."""
    monkeypatch.chdir(tmp_path)
    auth = Auth.from_settings(
        prepare_data_directory(settings_from(filled({"LATCHSTRING_SECRET": SECRET} | variables))),
        features=DEFAULT_FEATURES,
    )
    await auth.close()


@pytest.mark.parametrize(
    "odd",
    [
        {"POSTGRES_USER": "ada@home:/?#%41 é"},
        {"POSTGRES_PASSWORD": "p@ss:/?#%41+ é'\\"},
        {"POSTGRES_SERVER": "::1"},
        {"POSTGRES_DB": "my db/?#%41"},
    ],
    ids=lambda odd: next(iter(odd)),
)
def test_the_five_variables_reach_the_driver_as_they_are(odd: dict[str, str]) -> None:
    """Whatever characters a password holds, none of them ends one part of the URL and begins another."""
    plain = {"POSTGRES_USER": "ada", "POSTGRES_PASSWORD": "pw", "POSTGRES_SERVER": "db", "POSTGRES_DB": "auth"}
    given = plain | {"POSTGRES_PORT": "6500"} | odd
    url = sa.make_url(settings_from(given).database)
    values = (url.username, url.password, url.host, str(url.port), url.database)
    assert values == tuple(given[f"POSTGRES_{name}"] for name in POSTGRES)
    assert not url.query


def test_a_wrong_setting_given_in_python_is_not_repeated_either() -> None:
    """A host application's traceback and log don't hold the secrets it handed in."""
    with pytest.raises(ValidationError) as refusal:
        Settings.model_validate({"secret": "short but secret", "database_url": "postgresql://ada:lovelace@db/auth"})
    assert "short but secret" not in str(refusal.value)
    assert "lovelace" not in str(refusal.value)
