"""Roles and an application's own claims: what access tokens say beside who somebody is, and how soon it is known."""

import asyncio
import copy
import dataclasses
import pickle
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import httpx2
import jwt
import pytest
from fastapi import FastAPI, Request

from latchstring import (
    Auth,
    Caller,
    CallerDep,
    ConfigurationError,
    InvalidRoleError,
    Settings,
    User,
    current_caller,
)
from latchstring.core.accounts.rules import MAX_ROLES, ROLE_MAX_LENGTH
from latchstring.core.tokens.compact import MAX_LENGTH
from latchstring.core.tokens.rules import CUSTOM_CLAIMS_MAX_BYTES
from latchstring.testing import ManualClock
from tests.support.backends import ON_SQLITE
from tests.support.hang import HANG_SECONDS
from tests.support.host import Host, browser_for
from tests.support.service import PASSWORD, Service, cheap_settings, credentials, registration, running_service


def said(token: str) -> dict[str, Any]:
    """Returns the claims, unverified."""
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


async def test_roles_ride_in_the_token_with_the_version(service: Service) -> None:
    """A grant raises `ver`; the refresh brings both. What changes nothing raises nothing, and nobody has to refresh."""
    browser = await service.registered()
    first = said(browser.cookies["access_token"])
    assert "roles" not in first
    user_id = UUID(first["sub"])
    for role in ("editor", "admin", "editor"):
        await service.auth.users.grant_role(user_id, role)
    await browser.post("/api/auth/refresh")
    second = said(browser.cookies["access_token"])
    assert second["roles"] == ["admin", "editor"]
    assert second["ver"] == first["ver"] + 2
    await service.auth.users.withdraw_role(user_id, "nothing they had")
    assert (await browser.get("/api/dashboard")).status_code == 200
    nobody = UUID(int=7)
    assert await service.auth.users.grant_role(nobody, "editor") is None
    assert await service.auth.users.withdraw_role(nobody, "editor") is None


async def test_a_change_reaches_every_worker(settings: Settings, clock: ManualClock) -> None:
    """The worker that made it knows at once; the others by their next look, by the database and nothing else."""
    async with running_service(settings, clock) as here, running_service(settings, clock) as there:
        browser = await here.registered()
        bearer = {"Authorization": f"Bearer {browser.cookies['access_token']}"}
        user_id = UUID(said(browser.cookies["access_token"])["sub"])
        assert (await there.browser(headers=bearer).get("/api/dashboard")).status_code == 200
        await here.auth.users.grant_role(user_id, "editor")
        answer = await here.browser(headers=bearer).get("/api/dashboard")
        assert (answer.status_code, answer.json()["code"]) == (401, "claims_changed")
        async with asyncio.timeout(HANG_SECONDS):
            while (await there.browser(headers=bearer).get("/api/dashboard")).status_code == 200:  # noqa: ASYNC110 -- a poll, which tells nobody
                await asyncio.sleep(0.02)
        # Either worker gives the token that holds.
        renewed = await there.browser(headers={"Cookie": f"refresh_token={browser.cookies['refresh_token']}"}).post(
            "/api/auth/refresh"
        )
        bearer = {"Authorization": f"Bearer {renewed.cookies['access_token']}"}
        for service in (here, there):
            assert (await service.browser(headers=bearer).get("/api/dashboard")).status_code == 200


@ON_SQLITE
async def test_an_ended_session_is_not_told_to_refresh(service: Service) -> None:
    """Where a session has ended, and the claims changed as well, the end is what counts."""
    browser = await service.registered()
    bearer = service.browser(headers={"Authorization": f"Bearer {browser.cookies['access_token']}"})
    user_id = UUID(said(browser.cookies["access_token"])["sub"])
    await service.auth.users.grant_role(user_id, "editor")
    assert (await bearer.get("/api/dashboard")).json()["code"] == "claims_changed"
    await browser.post("/api/auth/logout")
    assert (await bearer.get("/api/dashboard")).json()["code"] == "session_ended"
    await service.auth.users.delete(user_id)
    assert (await bearer.get("/api/dashboard")).json()["code"] == "user_not_found"


async def test_the_answer_that_was_lost_brings_the_new_roles(service: Service) -> None:
    """Asked again within the grace, after a change: the same generation, another token, and so another `jti`."""
    browser = await service.registered()
    old = {"Cookie": f"refresh_token={browser.cookies['refresh_token']}"}
    first = said((await service.browser(headers=old).post("/api/auth/refresh")).cookies["access_token"])
    again = said((await service.browser(headers=old).post("/api/auth/refresh")).cookies["access_token"])
    assert again == first
    await service.auth.users.grant_role(UUID(first["sub"]), "editor")
    third = said((await service.browser(headers=old).post("/api/auth/refresh")).cookies["access_token"])
    assert third == first | {"roles": ["editor"], "ver": first["ver"] + 1, "jti": third["jti"]}
    assert third["jti"] != first["jti"]


@ON_SQLITE
@pytest.mark.parametrize("role", ["", " ", "a b", "-admin", "ädmin", "x" * (ROLE_MAX_LENGTH + 1), "a\n"])
async def test_a_role_has_a_name(role: str, service: Service) -> None:
    """What is none is refused, and changes nothing."""
    browser = await service.registered()
    with pytest.raises(InvalidRoleError):
        await service.auth.users.grant_role(UUID(said(browser.cookies["access_token"])["sub"]), role)
    assert (await browser.get("/api/dashboard")).status_code == 200


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_the_fullest_token_is_one(database_url: str, clock: ManualClock) -> None:
    """With every role there may be, every byte of claims and RSA it is still read, and fits into a cookie."""

    async def claims(_user: User) -> Mapping[str, Any]:
        return {"shop:x": "y" * (CUSTOM_CLAIMS_MAX_BYTES - len('{"shop:x":""}'))}

    settings = cheap_settings(database_url, public_url="https://accounts.a-company-with-a-name.example.com")
    app = FastAPI()
    auth = Auth.from_settings(settings, claims=claims, clock=clock)
    auth.install(app)
    async with auth.running(), browser_for(app) as browser:
        browser.base_url = settings.public_url or ""
        await browser.post("/auth/register", json=registration())
        (user,) = await auth.users.list()
        for number in range(MAX_ROLES):
            await auth.users.grant_role(user.id, f"{number:02}".ljust(ROLE_MAX_LENGTH, "x"))
        with pytest.raises(InvalidRoleError, match="at most"):
            await auth.users.grant_role(user.id, "one-more")
        await browser.post("/auth/refresh")
        token = browser.cookies["__Host-access_token"]
        assert len(token) <= MAX_LENGTH - len("__Host-access_token=")
        assert (await browser.get("/auth/me")).status_code == 200


class Shop:
    """A host whose tokens say more."""

    def __init__(self, settings: Settings, clock: ManualClock) -> None:
        self.answer: Any = {"shop:tenant": 7, "https://shop.example/plan": {"name": "gold", "seats": [1, 2]}}
        self.asked: list[str] = []
        self.app = FastAPI()
        self.auth = Auth.from_settings(settings, claims=self.claims, clock=clock)
        self.auth.install(self.app)

        @self.app.get("/claims")
        async def claims(caller: CallerDep) -> dict[str, Any]:
            return {"tenant": caller.claims["shop:tenant"], "plan": caller.claims["https://shop.example/plan"]["name"]}

    async def claims(self, user: User) -> Mapping[str, Any]:
        self.asked.append(user.email)
        if isinstance(self.answer, Exception):
            raise self.answer
        answer: Mapping[str, Any] = self.answer
        return answer


@pytest.fixture
def shop(settings: Settings, clock: ManualClock) -> Shop:
    return Shop(settings, clock)


@ON_SQLITE
async def test_an_applications_own_claims(shop: Shop) -> None:
    """Asked at each sign-in and refresh; in the token, and back in `caller.claims`, where nobody can change them."""
    async with shop.auth.running(), browser_for(shop.app) as browser:
        await browser.post("/auth/register", json=registration())
        assert (await browser.get("/claims")).json() == {"tenant": 7, "plan": "gold"}
        shop.answer = {"shop:tenant": 8, "https://shop.example/plan": {"name": "silver"}}
        assert (await browser.get("/claims")).json()["tenant"] == 7
        await browser.post("/auth/refresh")
        assert (await browser.get("/claims")).json() == {"tenant": 8, "plan": "silver"}
        form = {"grant_type": "password", "username": "ada@example.com", "password": PASSWORD}
        token = (await browser.post("/auth/token", data=form)).json()["access_token"]
        assert said(token)["shop:tenant"] == 8
        assert shop.asked == ["ada@example.com"] * 3
        scope = {"type": "http", "method": "GET", "headers": [(b"authorization", b"Bearer " + token.encode())]}
        caller = await shop.auth.guard.caller(scope)
        with pytest.raises(TypeError):
            caller.claims["shop:tenant"] = 9  # type: ignore[index]  # the point
        assert isinstance(hash(caller), int)


@pytest.mark.parametrize(
    "claims",
    [
        *(
            {name: "admin"}
            for name in ("sub", "roles", "exp", "iss", "aud", "amr", "tenant", "a b:c", ":x", "urn:", "")
        ),
        {"shop:rate": 0.5},
        {"shop:when": object()},
        {"shop:text": "\ud800"},
        {"shop:no": float("nan")},
        {"shop:many": "x" * CUSTOM_CLAIMS_MAX_BYTES},
    ],
    ids="-".join,
)
@pytest.mark.parametrize("backend", ["sqlite"])
async def test_a_hook_can_never_set_a_registered_claim(claims: dict[str, Any], shop: Shop) -> None:
    """Nor say what a token can't: no token is issued, nobody gets in, and the refresh token is not used up."""
    async with shop.auth.running(), browser_for(shop.app) as browser:
        await browser.post("/auth/register", json=registration())
        before = dict(browser.cookies)
        shop.answer = claims
        for path, body in (("login", credentials()), ("refresh", None)):
            answer = await browser.post(f"/auth/{path}", json=body)
            assert (answer.status_code, dict(browser.cookies)) == (500, before)
        shop.answer = {"shop:tenant": 7, "https://shop.example/plan": {"name": "gold"}}
        shop.auth.parts.tools.clock.advance(minutes=1)  # type: ignore[attr-defined]  # a test's clock
        assert (await browser.post("/auth/refresh")).status_code == 200
        (user,) = await shop.auth.users.list()
        shop.answer = claims
        with pytest.raises(ConfigurationError):
            await shop.auth.parts.core.sign_in.claims_of(user)


@ON_SQLITE
async def test_a_hook_that_fails_loses_and_lets_in_nobody(shop: Shop) -> None:
    """500, and no cookies: the client that asks again a minute later is no thief."""
    async with shop.auth.running(), browser_for(shop.app) as browser:
        await browser.post("/auth/register", json=registration())
        shop.answer = RuntimeError("the shop's database is away")
        for path, body in (("refresh", None), ("login", credentials()), ("confirm", {"password": PASSWORD})):
            assert (await browser.post(f"/auth/{path}", json=body)).status_code == 500
        assert len((await browser.get("/auth/sessions")).json()) == 1
        assert (await browser.get("/claims")).status_code == 200
        shop.answer = {"shop:tenant": 7, "https://shop.example/plan": {"name": "gold"}}
        shop.auth.parts.tools.clock.advance(minutes=1)  # type: ignore[attr-defined]  # a test's clock
        assert (await browser.post("/auth/refresh")).status_code == 200


@ON_SQLITE
async def test_a_caller_can_be_sent_on(shop: Shop) -> None:
    """Returned from a route, copied, pickled and compared, claims and all; and changed by none of them."""

    @shop.app.get("/whole")
    async def whole(caller: CallerDep) -> Caller:
        return caller

    @shop.app.get("/own")
    async def own(caller: CallerDep) -> dict[str, Any]:
        return dict(caller.claims)

    async with shop.auth.running(), browser_for(shop.app) as browser:
        await browser.post("/auth/register", json=registration())
        plan = {"name": "gold", "seats": [1, 2]}
        assert (await browser.get("/whole")).json()["claims"] == {"shop:tenant": 7, "https://shop.example/plan": plan}
        assert (await browser.get("/own")).json()["https://shop.example/plan"] == plan
        scope = {"type": "http", "method": "GET", "headers": [(b"cookie", browser_cookie(browser))]}
        caller = await shop.auth.guard.caller(scope)
        for another in (copy.copy(caller), copy.deepcopy(caller), pickle.loads(pickle.dumps(caller))):  # noqa: S301 -- our own
            assert another == caller
        changes: list[Callable[[Any], object]] = [
            lambda claims: claims.update({"shop:tenant": 8}),
            lambda claims: claims.pop("shop:tenant"),
            lambda claims: claims["https://shop.example/plan"].clear(),
            lambda claims: claims["https://shop.example/plan"].setdefault("name", "silver"),
        ]
        for change in changes:
            with pytest.raises(TypeError, match="can't be changed"):
                change(caller.claims)
        assert dataclasses.asdict(caller)["claims"] == caller.claims


def browser_cookie(browser: httpx2.AsyncClient) -> bytes:
    return f"access_token={browser.cookies['access_token']}".encode()


@ON_SQLITE
async def test_a_caller_is_the_same_for_guards_and_state(settings: Settings, clock: ManualClock) -> None:
    """What a protected application below a mount finds in its request is what a dependency would give."""
    host = Host(settings, clock)
    inner = FastAPI()
    host.auth.attach(inner)

    @inner.get("/me")
    async def me(request: Request, caller: CallerDep) -> bool:
        return bool(request.state.caller == caller == await current_caller(request))

    host.app.mount("/inner", host.auth.protect(inner))
    async with host.auth.running():
        assert (await (await host.signed_in()).get("/inner/me")).json() is True
