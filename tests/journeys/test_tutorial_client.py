"""The tutorial's own client: a browser front end on http://localhost:3000, against the server with the tutorial's .env.

What the tutorial promises is kept to the letter: addresses, field names, sentences, cookie names and variables.
"""

import base64
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.postgres import Postgres
from tests.support.process import CHEAP_HASH, ServerProcess

FRONT_END = "http://localhost:3000"
SIGN_UP = {
    "first_name": "Ada",
    "last_name": "Lovelace",
    "email": "ada@example.com",
    "password": "password123",
    "passwordConfirm": "password123",
}
SIGN_IN = {"email": "ada@example.com", "password": "password123"}


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    """2,048 bits, as the web site gives them that the tutorial sends its readers to."""
    return rsa.generate_private_key(public_exponent=65_537, key_size=2048)


@pytest.fixture(scope="module")
def dot_env(postgres: Postgres, key: rsa.RSAPrivateKey) -> Iterator[str]:
    """The tutorial's .env: its names, and no other."""
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    url = postgres.create_database()
    parts = urlsplit(url)
    if not parts.password:
        pytest.skip("the five variables need a password, and LATCHSTRING_TEST_POSTGRES_URL names none")
    variables = {
        "POSTGRES_USER": unquote(parts.username or ""),
        "POSTGRES_PASSWORD": unquote(parts.password),
        "POSTGRES_SERVER": parts.hostname,
        "POSTGRES_PORT": parts.port or 5432,
        "POSTGRES_DB": parts.path.removeprefix("/"),
        "JWT_PRIVATE_KEY": base64.b64encode(private).decode(),
        "JWT_PUBLIC_KEY": base64.b64encode(public).decode(),
        "JWT_ALGORITHM": "RS256",
        "REFRESH_TOKEN_EXPIRE_MINUTES": 60,
        "ACCESS_TOKEN_EXPIRE_MINUTES": 15,
        "CLIENT_ORIGIN": FRONT_END,
    }
    yield "".join(f"{name}={value}\n" for name, value in variables.items())
    postgres.drop_database(url)


@pytest.fixture(scope="module")
def server(dot_env: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("tutorial")
    (folder / ".env").write_text(dot_env)
    with ServerProcess(folder, variables=CHEAP_HASH) as running:
        yield running
    # Database and keys are elsewhere: nothing was left beside the .env.
    assert [path.name for path in Path(folder).iterdir()] == [".env"]


class FrontEnd:
    """What `fetch(url, {credentials: "include"})` on the front end's page does, preflight and all."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client
        self._page = {"Origin": FRONT_END, "Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}

    @property
    def cookies(self) -> httpx2.Cookies:
        """The browser's cookies for the server; the page itself can't read them."""
        return self._client.cookies

    def fetch(self, method: str, path: str, json: dict[str, str] | None = None) -> httpx2.Response:
        """Returns the answer, as far as the browser lets the page see it."""
        if json is not None:
            asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "content-type"}
            preflight = self._client.options(path, headers=self._page | asked)
            assert preflight.is_success
            self._readable(preflight)
            assert method in preflight.headers["access-control-allow-methods"]
            assert "content-type" in preflight.headers["access-control-allow-headers"].lower()
        answer = self._client.request(method, path, json=json, headers=self._page)
        self._readable(answer)
        return answer

    def _readable(self, answer: httpx2.Response) -> None:
        assert answer.headers["access-control-allow-origin"] == FRONT_END
        assert answer.headers["access-control-allow-credentials"] == "true"


@pytest.fixture
def page(server: ServerProcess) -> Iterator[FrontEnd]:
    with server.client() as client:
        yield FrontEnd(client)


def test_the_tutorials_front_end_goes_through_all_five_routes(page: FrontEnd, key: rsa.RSAPrivateKey) -> None:
    """Sign-up, dashboard, refresh by GET, logout, login: field by field and sentence by sentence."""
    answer = page.fetch("GET", "/api/dashboard/dashboard")
    assert (answer.status_code, answer.json()["detail"]) == (401, "You must refresh")
    answer = page.fetch("GET", "/api/auth/refresh")
    assert (answer.status_code, answer.json()["detail"]) == (403, "Missing refresh token!")
    answer = page.fetch("POST", "/api/auth/register", SIGN_UP | {"passwordConfirm": "password124"})
    assert (answer.status_code, answer.json()["detail"]) == (400, "Passwords do not match!")

    answer = page.fetch("POST", "/api/auth/register", SIGN_UP)
    assert answer.status_code == 201
    user = answer.json()
    assert {name: user[name] for name in ("first_name", "last_name", "email")} == {
        name: SIGN_UP[name] for name in ("first_name", "last_name", "email")
    }
    assert "password" not in answer.text
    assert set(page.cookies) == {"access_token", "refresh_token"}

    answer = page.fetch("POST", "/api/auth/register", SIGN_UP)
    assert (answer.status_code, answer.json()["detail"]) == (409, "An account by that email already registered!")

    answer = page.fetch("GET", "/api/dashboard/dashboard")
    assert (answer.status_code, answer.json()) == (200, {"message": "Hello from the dashboard!"})

    # The tutorial's own claims, under the tutorial's own key; whole seconds, and its lifetimes.
    for kind, minutes in (("access", 15), ("refresh", 60)):
        token = page.cookies[f"{kind}_token"]
        assert jwt.get_unverified_header(token)["alg"] == "RS256"
        claims = jwt.decode(token, key.public_key(), algorithms=["RS256"], audience="latchstring")
        assert claims["sub"] == user["id"]
        assert claims["type"] == kind
        assert claims["exp"] - claims["iat"] == minutes * 60
        assert claims["nbf"] == claims["iat"]
        assert claims["jti"]
        assert "Lovelace" not in str(claims)

    before = page.cookies["refresh_token"]
    answer = page.fetch("GET", "/api/auth/refresh")
    assert (answer.status_code, answer.json()) == (200, user)
    assert page.cookies["refresh_token"] != before

    answer = page.fetch("POST", "/api/auth/logout")
    assert (answer.status_code, answer.json()) == (200, {"status": "success"})
    assert not page.cookies
    answer = page.fetch("GET", "/api/dashboard/dashboard")
    assert (answer.status_code, answer.json()["detail"]) == (401, "You must refresh")

    answer = page.fetch("POST", "/api/auth/login", SIGN_IN | {"password": "password124"})
    assert (answer.status_code, answer.json()["detail"]) == (400, "Incorrect username or password")
    assert answer.headers["www-authenticate"] == "Bearer"
    answer = page.fetch("POST", "/api/auth/login", SIGN_IN)
    assert (answer.status_code, answer.json()) == (200, user)
    assert page.fetch("GET", "/api/dashboard/dashboard").status_code == 200


def test_the_tutorials_header_client(page: FrontEnd, server: ServerProcess) -> None:
    """`authjwt_token_location = {"cookies", "headers"}`: a bearer token opens the dashboard, a broken header is 403."""
    page.fetch("POST", "/api/auth/register", SIGN_UP | {"email": "bob@example.com"})
    with server.client() as client:
        bearer = {"Authorization": f"Bearer {page.cookies['access_token']}"}
        assert client.get("/api/dashboard/dashboard", headers=bearer).status_code == 200
        answer = client.get("/api/dashboard/dashboard", headers={"Authorization": "Bearer"})
        assert (answer.status_code, answer.json()["detail"]) == (403, "Invalid Header Error")


def test_a_page_elsewhere_is_not_the_tutorials_front_end(server: ServerProcess) -> None:
    """The same requests from another origin: no allow-origin header, and nothing done."""
    with server.client() as client:
        elsewhere = {"Origin": "http://localhost:3001", "Sec-Fetch-Site": "same-site"}
        for method, path in (("POST", "/api/auth/login"), ("POST", "/api/auth/logout"), ("GET", "/api/auth/refresh")):
            answer = client.request(method, path, json=SIGN_IN if "login" in path else None, headers=elsewhere)
            assert answer.status_code == 403
            assert "access-control-allow-origin" not in answer.headers
