"""The library in a host's own FastAPI application: its routes are guarded, and all else of it stays as it was."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.responses import PlainTextResponse

from latchstring import (
    DEFAULT_FEATURES,
    Auth,
    CallerDep,
    ConfigurationError,
    Core,
    FeatureParts,
    Pages,
    Settings,
    Tools,
)
from latchstring.foundation.events import OPERATOR
from latchstring.testing import ManualClock
from tests.support.backends import ON_SQLITE
from tests.support.host import Host, browser_for, host_app
from tests.support.service import credentials, registration


@pytest.fixture
async def host(settings: Settings, clock: ManualClock) -> AsyncIterator[Host]:
    host = Host(settings, clock)
    async with host.auth.running():
        yield host


@ON_SQLITE
async def test_ten_lines_to_a_protected_route(host: Host) -> None:
    """Who is signed in gets in, known from the token alone or with the user read."""
    browser = await host.signed_in()
    user_id = (await browser.get("/auth/me")).json()["id"]
    assert (await browser.get("/reports")).json() == {"for": user_id, "methods": ["pwd"]}
    assert (await browser.get("/profile")).json() == {"email": "ada@example.com"}
    assert (await browser.post("/reports", json={"title": "Notes", "pages": 7})).json() == 1
    bearer = host.browser(Authorization=f"Bearer {browser.cookies['access_token']}")
    assert (await bearer.get("/profile")).status_code == 200


NO_TOKEN = (401, "Bearer", "You must refresh")
EXPIRED = (401, 'Bearer error="invalid_token"', "You must refresh")
FORGED = (401, 'Bearer error="invalid_token"', "The token is not valid.")
ENDED = (401, 'Bearer error="invalid_token"', "The session has ended.")
MALFORMED = (403, None, "Invalid Header Error")
DELETED = (404, None, "User not found")


@ON_SQLITE
@pytest.mark.parametrize("path", ["/reports", "/profile"])
async def test_refusals_are_the_hosts_own_exceptions(path: str, host: Host) -> None:
    """On a host's route a refusal is an ordinary HTTPException with status, challenge and `{"detail": …}`."""

    async def refused(browser: httpx2.AsyncClient) -> tuple[int, str | None, str]:
        answer = await browser.get(path)
        assert answer.headers["content-type"] == "application/json"
        assert answer.json().keys() == {"detail"}
        return answer.status_code, answer.headers.get("www-authenticate"), answer.json()["detail"]

    ada, bob, eve = [await host.signed_in(f"{name}@example.com") for name in ("ada", "bob", "eve")]
    bobs_id = (await bob.get("/auth/me")).json()["id"]
    assert await refused(host.browser()) == NO_TOKEN
    assert await refused(host.browser(Authorization="Basic YWRhOnB3")) == NO_TOKEN
    assert await refused(host.browser(Authorization="Bearer")) == MALFORMED
    assert await refused(host.browser(Authorization="Bearer no.token.here")) == FORGED
    assert await refused(host.browser(Authorization=f"Bearer {ada.cookies['refresh_token']}")) == FORGED
    kept = host.browser(Authorization=f"Bearer {ada.cookies['access_token']}")
    await ada.post("/auth/logout")
    assert await refused(kept) == ENDED
    assert await host.auth.users.delete(UUID(bobs_id), source=OPERATOR)
    assert await refused(bob) == DELETED
    host.clock.advance(minutes=15)
    assert await refused(eve) == EXPIRED


@ON_SQLITE
async def test_the_hosts_own_answers_stay(host: Host) -> None:
    """422, 404, own exceptions and open routes are FastAPI's, with no header of ours; our routes speak problem+json."""
    browser = await host.signed_in()
    answer = await browser.post("/reports", json={"title": "Notes"})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/json")
    assert answer.json()["detail"][0]["loc"] == ["body", "pages"]
    assert (await browser.get("/nowhere")).json() == {"detail": "Not Found"}
    answer = await browser.get("/own-refusal")
    assert (answer.status_code, answer.json()) == (402, {"detail": "not yet, pwd"})
    answer = await host.browser().get("/open")
    assert (answer.json(), set(answer.headers)) == ("for everyone", {"content-length", "content-type"})
    answer = await host.browser().post("/auth/login", json=credentials(password="not the password"))
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert answer.json()["code"] == "invalid_credentials"


@ON_SQLITE
async def test_a_body_is_not_looked_at_before_the_guard_has_passed(host: Host) -> None:
    """A stranger's request changes nothing, whatever is in it."""
    assert (await host.browser().post("/reports", json={"title": "Notes", "pages": 7})).status_code == 401
    assert host.app.state.reports == []


@ON_SQLITE
async def test_the_hosts_own_handlers_see_our_refusals(host: Host) -> None:
    """A host that words all its errors itself words ours too, and the challenge is there for it to send."""

    async def in_own_words(_request: Request, error: Exception) -> PlainTextResponse:
        assert isinstance(error, HTTPException)
        return PlainTextResponse(f"sorry: {error.detail}", error.status_code, error.headers)

    host.app.add_exception_handler(HTTPException, in_own_words)
    answer = await host.browser().get("/reports")
    assert (answer.status_code, answer.text) == (401, "sorry: You must refresh")
    assert answer.headers["www-authenticate"] == "Bearer"


def own_key() -> str:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem.decode()


@ON_SQLITE
@pytest.mark.parametrize(
    "differences",
    [
        [
            {"jwt_algorithm": "ES256", "jwt_private_key": own_key()},
            {"jwt_algorithm": "ES256", "jwt_private_key": own_key()},
        ],
        [{"audience": "shop"}, {"audience": "forum"}],
        [{"public_url": "http://localhost:9000"}, {"public_url": "http://localhost:9001"}],
    ],
    ids=["keys", "audience", "issuer"],
)
async def test_two_apps_in_one_process_know_nothing_of_each_other(
    differences: list[dict[str, Any]], settings: Settings, clock: ManualClock
) -> None:
    """With another key, audience or issuer the other one's tokens are worth nothing, though all else is shared."""
    hosts = [Host(Settings.model_validate(settings.model_dump() | difference), clock) for difference in differences]
    async with contextlib.AsyncExitStack() as stack:
        for host in hosts:
            await stack.enter_async_context(host.auth.running())
        for host, other, email in (
            (hosts[0], hosts[1], "ada@example.com"),
            (hosts[1], hosts[0], "bob@example.com"),
        ):
            tokens = (await host.signed_in(email)).cookies
            stranger = other.browser(Authorization=f"Bearer {tokens['access_token']}")
            assert (await stranger.get("/reports")).status_code == 401
            renewal = other.browser(Authorization=f"Bearer {tokens['refresh_token']}")
            assert (await renewal.post("/auth/refresh")).status_code == 401
            at_home = host.browser(Authorization=f"Bearer {tokens['access_token']}")
            assert (await at_home.get("/reports")).status_code == 200


@ON_SQLITE
async def test_a_second_install_is_refused(host: Host, settings: Settings) -> None:
    """Two doors to one house, each with its own idea of who is in, are a mistake: the first stays in force."""
    second = Auth.from_settings(settings)
    with pytest.raises(ConfigurationError, match="already"):
        second.install(host.app, prefix="/other")
    await second.close()
    assert (await host.browser().post("/other/login", json=credentials())).status_code == 404
    assert (await (await host.signed_in()).get("/reports")).status_code == 200


@ON_SQLITE
async def test_a_refused_install_changes_nothing_of_the_application(settings: Settings, tmp_path: Path) -> None:
    """A catalogue that can't be read is refused, and the application can still be given another Auth."""
    catalogue = tmp_path / "de" / "LC_MESSAGES" / "latchstring.mo"
    catalogue.parent.mkdir(parents=True)
    catalogue.write_bytes(b"no catalogue")
    app = FastAPI()
    before = list(app.routes)
    with pytest.raises(ConfigurationError, match="catalogue"):
        Auth.from_settings(settings, pages=Pages(locale=tmp_path)).install(app)
    assert Auth.of(app) is None
    assert list(app.routes) == before
    Auth.from_settings(settings).install(app)


@ON_SQLITE
@pytest.mark.parametrize("path", ["/reports", "/profile"])
async def test_a_guard_without_auth_lets_nobody_in(path: str, host: Host) -> None:
    """A guarded route in an application without `install` is a broken one, not an open one (CVE-2020-26250)."""
    tokens = (await host.signed_in()).cookies
    forgotten, parent = host_app(), FastAPI()
    parent.mount("/below", forgotten)
    for app, prefix in ((forgotten, ""), (parent, "/below")):
        answer = await browser_for(app, Authorization=f"Bearer {tokens['access_token']}").get(prefix + path)
        assert answer.status_code == 500
        assert "ada" not in answer.text


@ON_SQLITE
async def test_the_hosts_document_knows_the_guard(host: Host) -> None:
    """OpenAPI marks the guarded routes, and only them."""
    paths = (await host.browser().get("/openapi.json")).json()["paths"]
    assert all("security" in paths[path]["get"] for path in ("/reports", "/profile"))
    assert "security" not in paths["/open"]["get"]


class GreetingFeature:
    """A third party's feature, with a parameter in its path."""

    def build(self, tools: Tools, core: Core) -> FeatureParts:
        router: APIRouter = tools.web.router()

        @router.get("/greetings/{name}")
        async def greet(name: str, caller: CallerDep) -> dict[str, str]:
            return {"hello": name}

        return FeatureParts(name="greeting", router=router)


async def test_a_third_partys_feature_comes_through_the_same_door(settings: Settings, clock: ManualClock) -> None:
    """Its routes are mounted beside ours, guarded and with parameters; what none of us has stays the host's."""
    auth = Auth.from_settings(settings, features=(*DEFAULT_FEATURES, GreetingFeature()), clock=clock)
    app = FastAPI()
    auth.install(app, prefix="/auth")
    app.get("/auth-and-more/{name}")(lambda name: {"host": name})
    async with auth.running(), browser_for(app) as browser:
        assert (await browser.get("/auth/greetings/ada")).status_code == 401
        assert (await browser.post("/auth/register", json=registration())).status_code == 201
        assert (await browser.get("/auth/greetings/ada")).json() == {"hello": "ada"}
        assert (await browser.post("/auth/greetings/ada")).status_code == 405
        assert (await browser.get("/auth/nothing")).status_code == 404
        assert (await browser.get("/auth-and-more/ada")).json() == {"host": "ada"}
