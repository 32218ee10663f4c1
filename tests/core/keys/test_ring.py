"""Keys: made once, sealed at rest, refused when weak, shown as JWKS; and PyJWT's reading of what they sign."""

import asyncio
import base64
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, x25519
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from httpx2 import Response
from jwt.algorithms import OKPAlgorithm

from latchstring import Auth, Settings
from latchstring.apps.environment import settings_from
from latchstring.apps.server import prepare
from latchstring.core.accounts.tables import users
from latchstring.core.keys.rotation import KeyChange
from latchstring.core.keys.settings import Algorithm
from latchstring.core.keys.tables import keys
from latchstring.errors import ConfigurationError, DatabaseUnavailableError, KeysUnavailableError
from latchstring.foundation.database import Database, engine
from latchstring.foundation.events import OPERATOR
from latchstring.testing import ManualClock
from tests.support.backends import ON_POSTGRESQL, ON_SQLITE
from tests.support.forge import KIND_FOR, Genuine, PrivateKey, new_key, private_pem, public_pem, sign_with, thumbprint
from tests.support.hang import HANG_SECONDS
from tests.support.process import latchstring
from tests.support.service import SECRET, Service, cheap_settings, running_service

JWKS = "/.well-known/jwks.json"
NEVER_OPENED = "sqlite:///never-opened.db"
PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}


def b64(pem: bytes) -> str:
    """Returns a PEM as the tutorial's `.env` has it."""
    return base64.b64encode(pem).decode()


def pair_variables(algorithm: str, *, which: int = 0) -> dict[str, str]:
    """Returns the tutorial's variables for a key pair."""
    key = new_key(KIND_FOR[algorithm], which)
    return {
        "JWT_ALGORITHM": algorithm,
        "JWT_PRIVATE_KEY": b64(private_pem(key)),
        "JWT_PUBLIC_KEY": b64(public_pem(key)),
    }


def with_keys(settings: Settings, variables: dict[str, str]) -> Settings:
    """Returns settings with keys from the environment laid over them."""
    given = settings_from(variables)
    return settings.model_copy(update={name: getattr(given, name) for name in given.model_fields_set})


def assert_jwks(answer: Response) -> list[dict[str, str]]:
    """Checks what holds of every set we publish (Wycheproof: no private member, no kid twice), and returns its keys."""
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/jwk-set+json"
    assert re.fullmatch(r"public, max-age=\d+", answer.headers["cache-control"])
    assert "PRIVATE" not in answer.text
    published: list[dict[str, str]] = answer.json()["keys"]
    kids = [jwk["kid"] for jwk in published]
    assert len(set(kids)) == len(kids)
    for jwk in published:
        assert not PRIVATE_MEMBERS & jwk.keys()
        assert jwk["kid"] == thumbprint(jwk)
        assert jwk["use"] == "sig"
        assert jwk["alg"] in set(Algorithm)
    return published


# --- What we issue, by the reading of another implementation ---------------------------------------------------------


@pytest.fixture(params=Algorithm)
def algorithm(request: pytest.FixtureRequest) -> str:
    return str(request.param.value)


@pytest.fixture(params=["environment", "database"])
async def signing_service(
    request: pytest.FixtureRequest, settings: Settings, algorithm: str, clock: ManualClock
) -> AsyncIterator[Service]:
    """A worker that signs with `algorithm`, its keys from here or there."""
    if request.param == "environment":
        settings = with_keys(settings, pair_variables(algorithm))
    else:
        settings = settings.model_copy(update={"jwt_algorithm": Algorithm(algorithm)})
        await prepare(settings)
        clock.advance(minutes=11)  # a key of another algorithm takes over as in any rotation
    async with running_service(settings, clock) as running:
        yield running


@pytest.fixture
def pyjwt_knows_ed25519() -> Iterator[None]:
    """PyJWT verifies the signature and has not heard of its RFC 9864 name."""
    jwt.register_algorithm("Ed25519", OKPAlgorithm())
    yield
    jwt.unregister_algorithm("Ed25519")


def pyjwts_key(jwk: dict[str, str]) -> ed25519.Ed25519PublicKey | jwt.PyJWK:
    """Returns a published key as PyJWT reads it."""
    if jwk["alg"] != "Ed25519":
        return jwt.PyJWK(jwk)
    key = OKPAlgorithm.from_jwk(jwk)
    assert isinstance(key, ed25519.Ed25519PublicKey)
    return key


@ON_SQLITE
@pytest.mark.usefixtures("pyjwt_knows_ed25519")
async def test_pyjwt_agrees(signing_service: Service, algorithm: str) -> None:
    """Another service, knowing only our JWKS, reads our tokens: exact header and claims, no person in them."""
    service, clock = signing_service, signing_service.clock
    browser = await service.registered()
    user = (await browser.get("/api/auth/me")).json()
    now = int(clock.now().timestamp())
    published = {jwk["kid"]: pyjwts_key(jwk) for jwk in assert_jwks(await service.browser().get(JWKS))}

    def read(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
        header = jwt.get_unverified_header(text)
        key = published[header["kid"]]
        issuer = audience = "latchstring"
        options: jwt.types.Options = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
        claims = jwt.decode(text, key, [algorithm], audience=audience, issuer=issuer, options=options)
        return header, claims

    header, access = read(browser.cookies["access_token"])
    refresh_header, refresh = read(browser.cookies["refresh_token"])
    kid = header["kid"]
    assert header == {"alg": algorithm, "typ": "at+jwt", "kid": kid}
    assert refresh_header == {"alg": algorithm, "typ": "rt+jwt", "kid": kid}
    both = {
        "iss": "latchstring",
        "aud": "latchstring",
        "sub": user["id"],
        "sid": access["sid"],
        "iat": now,
        "nbf": now,
    }
    assert access == both | {
        "exp": now + 15 * 60,
        "jti": access["jti"],
        "type": "access",
        "auth_time": now,
        "amr": ["pwd"],
        "ver": access["ver"],
        "client_id": "latchstring",
    }
    assert refresh == both | {
        "exp": now + 60 * 60,
        "jti": refresh["jti"],
        "type": "refresh",
        "gen": refresh["gen"],
        "auth_time": now,
        "amr": ["pwd"],
    }
    assert UUID(access["sid"]).version == UUID(access["sub"]).version == 7
    assert {type(value) for claims in (access, refresh) for name, value in claims.items() if name in TIMES} == {int}
    assert access["jti"] != refresh["jti"]


TIMES = {"iat", "nbf", "exp", "auth_time", "ver", "gen"}


@ON_SQLITE
async def test_a_repeated_answer_is_the_same(service: Service) -> None:
    """Two tabs that refresh with one token get the same claims to the letter; the next generation gets others."""
    browser = await service.registered()
    first = browser.cookies["refresh_token"]

    async def renewed(text: str) -> list[dict[str, Any]]:
        stranger = service.browser(headers={"Authorization": f"Bearer {text}"})
        assert (await stranger.post("/api/auth/refresh")).status_code == 200
        return [Genuine.of(stranger.cookies[name], service).claims for name in ("access_token", "refresh_token")]

    before = [Genuine.of(browser.cookies[name], service).claims for name in ("access_token", "refresh_token")]
    service.clock.advance(seconds=1.25)
    once = await renewed(first)
    service.clock.advance(seconds=1.25)
    assert await renewed(first) == once
    for earlier, later in zip(before, once, strict=True):
        assert later["jti"] != earlier["jti"]
        assert later["iat"] > earlier["iat"]
        assert later["sid"] == earlier["sid"]
    assert once[0]["auth_time"] == before[0]["auth_time"], "a refresh proves nothing anew"


@ON_SQLITE
async def test_roles_ride_along_where_there_are_any(service: Service) -> None:
    """Roles are in the access token, in their order, and in no refresh token."""
    browser = await service.registered()
    async with service.auth.parts.tools.database.transaction() as connection:
        await connection.execute(users.update().values(roles=["editor", "admin"]))
    await browser.post("/api/auth/refresh")
    access, refresh = (Genuine.of(browser.cookies[name], service).claims for name in ("access_token", "refresh_token"))
    assert access["roles"] == ["editor", "admin"]
    assert "roles" not in refresh


@ON_SQLITE
async def test_issuer_and_audience_are_the_settings(settings: Settings) -> None:
    """`iss` is the public URL, `aud` the audience; each is what the other service is told to expect."""
    public = settings.model_copy(update={"public_url": "https://id.example.com", "audience": "https://api.example.com"})
    async with running_service(public) as service:
        browser = await service.registered()
        claims = Genuine.of(browser.cookies["__Host-access_token"], service).claims
        assert (claims["iss"], claims["aud"]) == ("https://id.example.com", "https://api.example.com")
        assert (await browser.get("/api/dashboard")).status_code == 200


@ON_SQLITE
async def test_no_token_outlives_its_session(settings: Settings, clock: ManualClock) -> None:
    """`exp` never passes the session's absolute end, however often it is refreshed."""
    short = settings.model_copy(update={"session_max_days": 1 / 24})
    async with running_service(short, clock) as service:
        browser = await service.registered()
        started = int(clock.now().timestamp())
        clock.advance(minutes=50)
        assert (await browser.post("/api/auth/refresh")).status_code == 200
        for name in ("access_token", "refresh_token"):
            assert Genuine.of(browser.cookies[name], service).claims["exp"] == started + 60 * 60
        clock.advance(minutes=10)
        assert (await browser.post("/api/auth/refresh")).status_code == 401


@ON_SQLITE
async def test_extra_public_keys_verify_and_do_not_sign(settings: Settings) -> None:
    """A previous key's tokens are good as long as it is among the extra ones; new tokens never name it."""
    old, new = pair_variables("RS256", which=1), pair_variables("RS256", which=2)
    async with running_service(with_keys(settings, old)) as service:
        signed_by_old = (await service.registered()).cookies["access_token"]
    more = (f"PS256:{b64(public_pem(new_key('RSA-2048', 3)))}", b64(public_pem(new_key("P-256"))))
    extra = f"{old['JWT_PUBLIC_KEY']} , {new['JWT_PUBLIC_KEY']},{','.join(more)}"
    async with running_service(with_keys(settings, new | {"JWT_EXTRA_PUBLIC_KEYS": extra})) as service:
        published = assert_jwks(await service.browser().get(JWKS))
        assert sorted(jwk["alg"] for jwk in published) == ["ES256", "PS256", "RS256", "RS256"]
        bearer = service.browser(headers={"Authorization": f"Bearer {signed_by_old}"})
        assert (await bearer.get("/api/dashboard")).status_code == 200
        browser = await service.registered("bob@example.com")
        signed_by_new = Genuine.of(browser.cookies["access_token"], service)
        assert signed_by_new.header["kid"] != Genuine.of(signed_by_old, service).header["kid"]
        # Both keys are RSA: each token holds under its own key, and only there.
        swapped = signed_by_new.with_header(sign=sign_with(new_key("RSA-2048", 1), "RS256"))
        bearer = service.browser(headers={"Authorization": f"Bearer {swapped}"})
        assert (await bearer.get("/api/dashboard")).status_code == 401
    async with running_service(with_keys(settings, new)) as service:
        bearer = service.browser(headers={"Authorization": f"Bearer {signed_by_old}"})
        assert (await bearer.get("/api/dashboard")).status_code == 401


async def taken_by_each_other(one: Settings, other: Settings) -> list[int]:
    """Returns what two workers with these settings, on one database, answer to each other's tokens."""
    async with running_service(one) as first, running_service(other) as second:
        answers = []
        for issuer, verifier in ((first, second), (second, first)):
            browser = await issuer.registered(f"{uuid4().hex}@example.com")
            bearer = verifier.browser(headers={"Authorization": f"Bearer {browser.cookies['access_token']}"})
            answers.append((await bearer.get("/api/dashboard")).status_code)
        return answers


@ON_SQLITE
async def test_keys_of_the_environment_rotate_in_the_order_of_the_guide(settings: Settings) -> None:
    """In each of the three roll-outs, old and new instances take each other's tokens; without the first they do not."""
    old, new = pair_variables("ES256", which=1), pair_variables("ES256", which=2)
    steps = [
        old,
        old | {"JWT_EXTRA_PUBLIC_KEYS": new["JWT_PUBLIC_KEY"]},
        new | {"JWT_EXTRA_PUBLIC_KEYS": old["JWT_PUBLIC_KEY"]},
        new,
    ]
    before, *after = [with_keys(settings, variables) for variables in steps]
    for one, other in zip([before, *after], after, strict=False):
        assert await taken_by_each_other(one, other) == [200, 200]
    assert await taken_by_each_other(before, after[1]) == [200, 401]


# --- Keys that are refused --------------------------------------------------------------------------------------------


def der(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def refused_keys() -> Iterator[Any]:
    """Yields changes to a good RS256 pair (or another algorithm's), and the variable that the error must name."""
    rsa_key, other = new_key("RSA-2048"), new_key("RSA-2048", 1)
    p256, p384, weak = new_key("P-256"), new_key("P-384"), new_key("RSA-1024")
    encrypted = rsa_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))
    kinds = {"RSA": rsa_key, "P-256": p256, "Ed25519": new_key("Ed25519")}
    fitting = {"RS256": "RSA", "PS256": "RSA", "ES256": "P-256", "EdDSA": "Ed25519", "Ed25519": "Ed25519"}

    def case(name: str, variable: str, **changes: str) -> Any:  # noqa: ANN401 -- pytest's own type is private
        return pytest.param({variable: "", **changes}, variable, id=name)

    for variable in ("JWT_PRIVATE_KEY", "JWT_PUBLIC_KEY", "JWT_EXTRA_PUBLIC_KEYS"):
        for name, value in (
            ("not base64", "!!! nothing like a key !!!"),
            ("beyond ASCII", "schl\u00fcssel-schl\u00fcssel"),
            ("base64 of no PEM", b64(b"a text that is no key at all")),
            ("base64 of an empty PEM", b64(b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n")),
            ("base64 of a broken PEM", b64(private_pem(rsa_key).replace(b"MII", b"AAA"))),
            ("a PEM cut short", b64(private_pem(rsa_key)[:600])),
        ):
            yield case(f"{variable}: {name}", variable, **{variable: value})
    yield case("public as private", "JWT_PRIVATE_KEY", JWT_PRIVATE_KEY=b64(public_pem(rsa_key)))
    yield case("private as public", "JWT_PUBLIC_KEY", JWT_PUBLIC_KEY=b64(private_pem(rsa_key)))
    yield case("private as extra", "JWT_EXTRA_PUBLIC_KEYS", JWT_EXTRA_PUBLIC_KEYS=b64(private_pem(other)))
    yield case("encrypted", "JWT_PRIVATE_KEY", JWT_PRIVATE_KEY=b64(encrypted))
    yield case("of two pairs", "JWT_PUBLIC_KEY", JWT_PUBLIC_KEY=b64(public_pem(other)))
    yield case("CVE-2025-45768, RSA of 1,024 bits", "JWT_PRIVATE_KEY", JWT_PRIVATE_KEY=b64(private_pem(weak)))
    yield case("CVE-2025-45768, public", "JWT_PUBLIC_KEY", JWT_PUBLIC_KEY=b64(public_pem(weak)))
    yield case("CVE-2025-45768, extra", "JWT_EXTRA_PUBLIC_KEYS", JWT_EXTRA_PUBLIC_KEYS=b64(public_pem(weak)))
    yield case(
        "extra, one of two broken", "JWT_EXTRA_PUBLIC_KEYS", JWT_EXTRA_PUBLIC_KEYS=f"{b64(public_pem(other))},AAAA"
    )
    odd: dict[str, PrivateKey | ed448.Ed448PrivateKey | x25519.X25519PrivateKey] = {
        "P-384 for ES256": p384,
        "secp256k1 for ES256": ec.generate_private_key(ec.SECP256K1()),
        "Ed448 for EdDSA": ed448.Ed448PrivateKey.generate(),
        "X25519 for EdDSA": x25519.X25519PrivateKey.generate(),
    }
    odd |= {f"{kind} for {alg}": key for alg, fits in fitting.items() for kind, key in kinds.items() if kind != fits}
    for name, key in odd.items():
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        yield case(name, "JWT_PRIVATE_KEY", JWT_ALGORITHM=name.split()[-1], JWT_PRIVATE_KEY=b64(pem), JWT_PUBLIC_KEY="")


@pytest.mark.parametrize(("changes", "variable"), list(refused_keys()))
@pytest.mark.parametrize("prefix", ["", "LATCHSTRING_"])
def test_a_bad_key_is_refused_at_the_start(changes: dict[str, str], variable: str, prefix: str) -> None:
    """The error names the variable to correct, and holds nothing of what stands in it."""
    variables = {prefix + name: value for name, value in (pair_variables("RS256") | changes).items()}
    with pytest.raises(ConfigurationError) as refusal:
        Auth.from_settings(settings_from(variables | {"LATCHSTRING_DATABASE_URL": NEVER_OPENED}), features=())
    message = str(refusal.value)
    assert variable in message
    given = changes[variable]
    assert not any(given[at : at + 6] in message for at in range(max(1, len(given) - 6)))
    assert refusal.value.__suppress_context__ or refusal.value.__context__ is None


@pytest.mark.parametrize(
    "name", ["HS256", "HS512", "none", "None", "RS512", "rs256", "RS256,HS256", "PBES2-HS256+A128KW"]
)
@pytest.mark.parametrize("variable", ["JWT_ALGORITHM", "LATCHSTRING_JWT_ALGORITHM"])
def test_only_five_algorithms(name: str, variable: str) -> None:
    """CVE-2016-10555 and its heirs: no symmetric algorithm, and none, can be configured; the error names the five."""
    with pytest.raises(ConfigurationError, match=f"^{variable}: .*RS256.*PS256.*ES256.*EdDSA.*Ed25519") as refusal:
        settings_from({variable: name})
    assert f"'{name}'" not in str(refusal.value)


def test_the_public_half_follows_from_the_private_one() -> None:
    """`JWT_PRIVATE_KEY` alone is enough; a public key alone is told to be too little."""
    variables = pair_variables("ES256") | {"LATCHSTRING_DATABASE_URL": NEVER_OPENED}
    whole = Auth.from_settings(settings_from(variables), features=()).parts.ring.current
    alone = Auth.from_settings(settings_from(variables | {"JWT_PUBLIC_KEY": ""}), features=()).parts.ring.current
    assert alone.jwks() == whole.jwks()
    with pytest.raises(ConfigurationError, match="JWT_PRIVATE_KEY must be set as well"):
        settings_from(variables | {"JWT_PRIVATE_KEY": ""})


# --- Keys at rest -----------------------------------------------------------------------------------------------------


async def stored_keys(url: str) -> list[dict[str, Any]]:
    """Reads the table as it lies there, the oldest first."""
    database = Database(url)
    async with database.reading() as connection:
        rows = (await connection.execute(sa.select(keys).order_by(keys.c.published_at))).mappings().all()
    await database.close()
    return [dict(row) for row in rows]


async def change_key(url: str, kid: str, **values: object) -> None:
    """Writes to a key's row, as somebody does who has the database and not the secret."""
    database = Database(url)
    async with database.transaction() as connection:
        await connection.execute(keys.update().where(keys.c.kid == kid).values(**values))
    await database.close()


def es256(url: str, **changes: object) -> Settings:
    """Returns settings whose keys are made in no time."""
    return cheap_settings(url, jwt_algorithm="ES256", **changes)


async def test_two_that_prepare_at_once_make_one_key(empty_url: str) -> None:
    """Workers, tasks or instances that start together on a new database agree on one key."""
    settings = es256(empty_url)
    await asyncio.gather(*(prepare(settings) for _ in range(4)))
    await prepare(settings)
    assert len(await stored_keys(empty_url)) == 1


async def test_two_processes_that_prepare_at_once_make_one_key(empty_url: str, tmp_path: Path) -> None:
    """The same, with real processes, as when two instances are rolled out."""
    variables = {
        "LATCHSTRING_DATABASE_URL": empty_url,
        "LATCHSTRING_SECRET": SECRET,
        "JWT_ALGORITHM": "ES256",
    }
    migrations = (asyncio.to_thread(latchstring, "migrate", cwd=tmp_path, variables=variables) for _ in range(2))
    ended = await asyncio.gather(*migrations)
    assert [process.returncode for process in ended] == [0, 0], [process.stderr for process in ended]
    assert len(await stored_keys(empty_url)) == 1


@pytest.mark.parametrize("algorithm", [Algorithm.RS256, Algorithm.ES256])
async def test_another_algorithm_gets_a_key_of_its_own(database_url: str, algorithm: Algorithm) -> None:
    """A changed `JWT_ALGORITHM` rotates to one key more, strong enough, and the old one goes on verifying."""
    settings = cheap_settings(database_url, jwt_algorithm=algorithm)
    await prepare(settings)
    await prepare(settings)
    stored = await stored_keys(database_url)
    assert sorted(key["algorithm"] for key in stored) == sorted({"EdDSA", algorithm.value})
    clock = ManualClock()
    async with running_service(settings, clock) as service:
        published = assert_jwks(await service.browser().get(JWKS))
        assert service.auth.parts.ring.current.signing.algorithm == "EdDSA"
        clock.advance(minutes=11)
        await service.auth.parts.core.feed.poll()
        assert service.auth.parts.ring.current.signing.algorithm == algorithm
    assert len(published) == len(stored)
    bits = [len(base64.urlsafe_b64decode(jwk["n"] + "==")) * 8 for jwk in published if jwk["kty"] == "RSA"]
    assert set(bits) == ({3072} if algorithm is Algorithm.RS256 else set())


async def test_private_halves_are_sealed(database_url: str, settings: Settings, tmp_path: Path, backend: str) -> None:
    """Whoever reads the database, its file or a dump of it, reads no private key."""
    (stored,) = await stored_keys(database_url)
    async with running_service(settings) as service:
        key = service.auth.parts.ring.current.signing.key.raw_value
        assert isinstance(key, PrivateKey)
    dump = repr(stored).encode() + b"".join(value for value in stored.values() if isinstance(value, bytes))
    if backend == "sqlite":
        dump += b"".join(path.read_bytes() for path in tmp_path.glob("latchstring.db*"))  # noqa: ASYNC240 -- nothing else runs
    assert b"PRIVATE" not in dump
    secret = der(key)[-64:]
    for spelling in (secret, base64.b64encode(secret)[4:-4], secret.hex().encode()):
        assert spelling not in dump
    assert SECRET.encode() not in dump


async def test_another_secret_is_refused_at_the_start(database_url: str) -> None:
    """An instance with another secret says so and makes no key; one that runs all the same lets nobody in."""
    stranger = cheap_settings(database_url, secret="another secret of the test suite, as long")
    with pytest.raises(ConfigurationError, match=r"^LATCHSTRING_SECRET ") as refusal:
        await prepare(stranger)
    assert "another secret" not in str(refusal.value)
    assert len(await stored_keys(database_url)) == 1
    async with running_service(stranger) as service:
        browser = service.browser()
        assert (await browser.get("/readyz")).status_code == 503
        answer = await browser.get(JWKS)
        assert (answer.status_code, answer.json()["code"]) == (503, "keys_unavailable")
        assert int(answer.headers["retry-after"]) >= 1


async def test_a_sealed_key_works_only_in_its_row(empty_url: str) -> None:
    """Whoever can write to the database can't bring a retired key back by moving it into another's row."""
    settings = es256(empty_url)
    await prepare(settings)
    clock = ManualClock()
    clock.advance(seconds=1)
    auth = Auth.from_settings(settings, features=(), clock=clock)
    assert isinstance(await auth.parts.keys.rotate(source=OPERATOR), KeyChange)
    await auth.close()
    first, second = await stored_keys(empty_url)
    clock.advance(minutes=11)
    auth = Auth.from_settings(settings, features=(), clock=clock)
    async with auth.parts.tools.database.reading() as connection:
        await auth.parts.ring.reload(connection)
    assert auth.parts.ring.current.signing.kid == second["kid"]
    assert auth.parts.ring.current.verifying.keys() == {first["kid"], second["kid"]}
    await auth.close()

    await change_key(empty_url, second["kid"], private_sealed=first["private_sealed"])
    await change_key(empty_url, first["kid"], private_sealed=second["private_sealed"])
    auth = Auth.from_settings(settings, features=(), clock=clock)
    async with auth.parts.tools.database.reading() as connection:
        with pytest.raises(KeysUnavailableError):
            await auth.parts.ring.reload(connection)
    with pytest.raises(KeysUnavailableError):
        _ = auth.parts.ring.current
    await auth.close()


@ON_POSTGRESQL
async def test_requests_that_hold_the_pool_delay_no_key(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """T8: the keys are read again on the connection that no request uses."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(8):
            held = await stack.enter_async_context(service.auth.parts.tools.database.engine.connect())
            assert not held.closed
        monkeypatch.setattr(engine, "TIMEOUT_SECONDS", 0.2)
        with pytest.raises(DatabaseUnavailableError):
            await service.auth.parts.ring.list_keys()
        monkeypatch.undo()
        async with asyncio.timeout(HANG_SECONDS / 2):
            await service.auth.parts.ring.catch_up(is_urgent=True)
