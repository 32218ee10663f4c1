"""Another service: it verifies by the issuer's public keys, and follows what has ended, without waiting for either."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from latchstring import Caller, Code, ConfigurationError, KeysUnavailableError, RefusedError, RevocationsUnknownError
from latchstring.features.revocation_feed.actions import FeedTokens
from latchstring.foundation.events import OPERATOR
from latchstring.testing import ManualClock
from latchstring.verifier import TokenVerifier
from latchstring.verifier.issuer import IssuerError
from tests.support.forge import EPOCH_AHEAD, Genuine, new_key, sign_with
from tests.support.hang import HANG_SECONDS, until
from tests.support.issuer import Door, served
from tests.support.service import Service, credentials

KEYS = "/.well-known/jwks.json"
FEED = "/api/auth/revocations"


@pytest.fixture
def backend() -> str:
    """The verifier has no database, and the issuer's may be the simpler one; the feed's own tests ask both."""
    return "sqlite"


@pytest.fixture
async def door(service: Service) -> AsyncIterator[Door]:
    async with served(service.app) as door:
        yield door


@pytest.fixture
async def feed_token(service: Service) -> str:
    token = await FeedTokens(service.auth.parts.tools.database, service.clock).create("orders", source=OPERATOR)
    assert token is not None
    return token


def verifier_of(door: Door, clock: ManualClock, **changes: Any) -> TokenVerifier:  # noqa: ANN401 -- the constructor's
    """Returns a verifier of the service behind the door."""
    given = {"issuer": "latchstring", "jwks_url": door.url + KEYS, "allow_http": True, "clock": clock}
    return TokenVerifier(**{**given, **changes})


def follower_of(door: Door, clock: ManualClock, feed_token: str, **changes: Any) -> TokenVerifier:  # noqa: ANN401 -- likewise
    """Returns one that follows revocations."""
    return verifier_of(door, clock, revocations_url=door.url + FEED, feed_token=feed_token, **changes)


async def access_token(service: Service, email: str = "ada@example.com") -> str:
    return (await service.registered(email)).cookies["access_token"]


async def refusal(verifier: TokenVerifier, token: str) -> Code:
    with pytest.raises(RefusedError) as refused:
        await verifier.verify(token)
    return refused.value.code


class Stall:
    """Answers nothing until it is let go, and 500 then."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.let_go.wait()
        await Response(status_code=500)(scope, receive, send)


async def settled(condition: Callable[[], bool]) -> None:
    """Waits until what goes on beside has come so far."""
    await until(condition)


# --- a token to a caller ----------------------------------------------------------------------------------------------


async def test_it_gives_the_callers_that_the_issuer_gives(service: Service, door: Door, clock: ManualClock) -> None:
    """Every claim of the caller is the same on both sides, and nothing but the keys was asked for, once."""
    token = await access_token(service)
    scope = {"type": "http", "method": "GET", "headers": [(b"authorization", f"Bearer {token}".encode())]}
    verifier = verifier_of(door, clock)
    async with verifier.running():
        assert await verifier.verify(token) == await service.auth.guard.caller(scope)
        for _ in range(3):
            await verifier.verify(await access_token(service, f"{_}@example.com"))
    assert door.asked == [KEYS]


async def test_it_needs_no_lifespan_to_verify(service: Service, door: Door, clock: ManualClock) -> None:
    """Outside `running()` the keys are fetched when the first token comes."""
    verifier = verifier_of(door, clock)
    assert isinstance(await verifier.verify(await access_token(service)), Caller)
    assert door.asked == [KEYS]


async def test_what_is_not_for_it_is_refused(service: Service, door: Door, clock: ManualClock) -> None:
    """Another issuer's or audience's, the other kind, a forged one, an expired one, and anything else."""
    browser = await service.registered()
    token, refresh = browser.cookies["access_token"], browser.cookies["refresh_token"]
    genuine = Genuine.of(token, service)
    verifier = verifier_of(door, clock)
    forged = genuine.with_header(sign=sign_with(new_key("RSA-2048", 7), "RS256"))
    for text in ("", "a.b.c", refresh, forged, genuine.with_claims(aud="other"), genuine.with_header(alg="none")):
        assert await refusal(verifier, text) is Code.INVALID_TOKEN
    assert await refusal(verifier_of(door, clock, audience="https://other.example"), token) is Code.INVALID_TOKEN
    assert await refusal(verifier_of(door, clock, issuer="https://other.example"), token) is Code.INVALID_TOKEN
    assert isinstance(await verifier.verify(token), Caller)
    clock.advance(minutes=15)
    assert await refusal(verifier, token) is Code.TOKEN_EXPIRED


async def test_the_dependency(service: Service, door: Door, clock: ManualClock) -> None:
    """A route gets the caller; refusals have the status, sentence and headers of the issuer's own routes."""
    verifier = verifier_of(door, clock)
    app = FastAPI()

    @app.get("/orders")
    async def orders(caller: Annotated[Caller, Depends(verifier)]) -> dict[str, str]:
        return {"of": str(caller.user_id)}

    token = await access_token(service)
    user_id = Genuine.of(token, service).claims["sub"]
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://orders") as client:

        async def ask(authorization: str | None) -> tuple[int, Any, str | None]:
            headers = {} if authorization is None else {"Authorization": authorization}
            answer = await client.get("/orders", headers=headers)
            return answer.status_code, answer.json(), answer.headers.get("www-authenticate")

        assert await ask(f"Bearer {token}") == (200, {"of": user_id}, None)
        assert await ask(None) == (401, {"detail": "You must refresh"}, "Bearer")
        assert await ask("Bearer x.y.z") == (401, {"detail": "The token is not valid."}, 'Bearer error="invalid_token"')
        assert await ask("Bearer") == (403, {"detail": "Invalid Header Error"}, None)
        assert (await ask("Basic YTpi"))[0] == 401
        document = (await client.get("/openapi.json")).json()
    assert document["paths"]["/orders"]["get"]["security"] == [{"accessToken": []}]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"issuer": "latchstring"}, "jwks_url must be given"),
        ({"issuer": "http://auth.example.com"}, "jwks_url must be https"),
        ({"jwks_url": "ftp://auth.example.com/keys"}, "jwks_url must be an https URL"),
        ({"jwks_url": "/keys"}, "jwks_url must be an https URL"),
        ({"revocations_url": "https://auth.example.com/revocations"}, "go together"),
        ({"feed_token": "lsf_x"}, "go together"),
        ({"revocations_url": "http://auth.example.com/r", "feed_token": "lsf_x"}, "revocations_url must be https"),
        ({"max_lag_seconds": 0}, "max_lag_seconds"),
        ({"max_lag_seconds": float("nan")}, "max_lag_seconds"),
    ],
)
def test_a_weak_configuration_is_refused(changes: dict[str, Any], words: str) -> None:
    """Keys that come in the clear could be anybody's; what contradicts itself is not guessed at."""
    with pytest.raises(ConfigurationError, match=words):
        TokenVerifier(**{"issuer": "https://auth.example.com", **changes})


def test_what_is_enough() -> None:
    """An https issuer alone; and, where it is allowed, one in the clear on this machine."""
    TokenVerifier(issuer="https://auth.example.com")
    TokenVerifier(issuer="http://localhost:8000", allow_http=True)


# --- the issuer's keys ------------------------------------------------------------------------------------------------


async def test_keys_are_kept_for_their_age(service: Service, door: Door, clock: ManualClock) -> None:
    """They are fetched again when `max-age` is over, beside the request that finds it so, and not before."""
    verifier, token = verifier_of(door, clock), await access_token(service)
    async with verifier.running():
        clock.suspend(seconds=299)
        await verifier.verify(token)
        assert door.asked == [KEYS]
        clock.suspend(seconds=1)
        door.faults[KEYS] = stall = Stall()
        await verifier.verify(token)
        await settled(lambda: len(door.asked) == 2)
        await verifier.verify(token)
        stall.let_go.set()
    assert door.asked == [KEYS, KEYS]


async def test_an_issuer_that_is_away_changes_nothing(service: Service, door: Door, clock: ManualClock) -> None:
    """The last good keys go on being used, whatever comes in their place; the issuer is asked every ten seconds."""
    verifier, token = verifier_of(door, clock), await access_token(service)
    genuine = Genuine.of(token, service)
    published = json.loads((await service.browser().get(KEYS)).text)["keys"]
    private = {**published[0], "d": "AQAB"}
    answers: list[Response] = [
        Response(status_code=503),
        Response(b"<html>", media_type="text/html"),
        JSONResponse({"keys": []}),
        JSONResponse({"keys": [private]}),
        JSONResponse({"keys": [*published, *published]}),
        JSONResponse({"keys": [{**published[0], "kid": "x" * 43}]}),
        Response(status_code=302, headers={"Location": door.url + "/healthz"}),
        Response(b" " * (256 * 1024 + 1)),
        Response(json.dumps({"keys": published}), headers={"Content-Encoding": "gzip"}),
    ]
    async with verifier.running():
        for count, answer in enumerate(answers, start=2):
            clock.suspend(seconds=300 if count == 2 else 10)
            door.faults[KEYS] = answer
            verifier._keys.current()
            assert verifier._keys._fetching is not None
            await verifier._keys._fetching
            assert isinstance(
                await verifier.verify(genuine.with_claims(exp=genuine.claims["exp"] + 10_000 + count)), Caller
            )
            assert door.asked.count(KEYS) == count, "a failure is followed by ten seconds of rest"
        assert "/healthz" not in door.asked, "a redirect leads nowhere"


async def test_no_keys_nobody_in(service: Service, door: Door, clock: ManualClock) -> None:
    """An issuer that was never reached is 503 and not 401; junk is 401, and asks nobody anything."""
    token = await access_token(service)
    verifier = verifier_of(door, clock)
    door.faults[KEYS] = Response(status_code=500)
    async with verifier.running():
        assert door.asked == [KEYS]
        assert await refusal(verifier, "junk") is Code.INVALID_TOKEN
        for _ in range(3):
            with pytest.raises(KeysUnavailableError):
                await verifier.verify(token)
        assert door.asked == [KEYS], "once a second, and no more"
        door.faults.clear()
        clock.suspend(seconds=1)
        assert isinstance(await verifier.verify(token), Caller)


async def test_pysec_2026_177_unknown_kids_make_it_ask_once_a_minute(
    service: Service, door: Door, clock: ManualClock
) -> None:
    """However many tokens with made-up key ids come: one look at the issuer a minute, shared by all who wait for it."""
    verifier, token = verifier_of(door, clock), await access_token(service)
    genuine = Genuine.of(token, service)
    made_up = [genuine.with_header(kid=f"{number:043}") for number in range(50)]
    async with verifier.running():
        door.asked.clear()
        refused = await asyncio.gather(*(refusal(verifier, text) for text in made_up))
        assert set(refused) == {Code.INVALID_TOKEN}
        assert door.asked == [KEYS]
        clock.suspend(seconds=59)
        await refusal(verifier, made_up[0])
        assert door.asked == [KEYS]
        clock.suspend(seconds=1)
        await asyncio.gather(*(refusal(verifier, text) for text in made_up))
        assert door.asked == [KEYS, KEYS]


async def test_known_keys_never_wait(service: Service, door: Door, clock: ManualClock) -> None:
    """While a look at the issuer hangs, tokens of known keys, new ones too, are verified at once."""
    verifier, token = verifier_of(door, clock), await access_token(service)
    genuine = Genuine.of(token, service)
    async with verifier.running():
        door.faults[KEYS] = stall = Stall()
        waiting = asyncio.create_task(verifier.verify(genuine.with_header(kid="k" * 43)))
        await settled(lambda: door.asked == [KEYS, KEYS])
        for number in range(20):
            assert isinstance(await verifier.verify(genuine.with_claims(exp=genuine.claims["exp"] + number)), Caller)
        # Whoever had waited for that look would have seen its end.
        assert not waiting.done()
        assert door.asked == [KEYS, KEYS]
        stall.let_go.set()
        with pytest.raises(RefusedError):
            await waiting


async def test_a_key_retired_at_once_is_known_by_its_successors_first_token(
    service: Service, door: Door, clock: ManualClock
) -> None:
    """The new key's first token makes the verifier look, and the old key is gone with that look."""
    verifier, old = verifier_of(door, clock), await access_token(service)
    async with verifier.running():
        assert isinstance(await verifier.verify(old), Caller)
        kid = service.auth.parts.ring.current.signing.kid
        await service.auth.sessions.retire_key_at_once(kid, source=OPERATOR)
        await service.auth.parts.core.feed.poll()
        login = await service.browser().post("/api/auth/login", json=credentials())
        assert isinstance(await verifier.verify(login.cookies["access_token"]), Caller)
        assert await refusal(verifier, old) is Code.INVALID_TOKEN


# --- following --------------------------------------------------------------------------------------------------------


async def test_what_ends_at_the_issuer_ends_here(
    service: Service, door: Door, clock: ManualClock, feed_token: str
) -> None:
    """One session, a user's, a deleted user's, everyone's: each with its reason, at the next look."""
    verifier = follower_of(door, clock, feed_token)
    browsers = {name: await service.registered(f"{name}@example.com") for name in ("ada", "bob", "eve", "joe")}
    tokens = {name: browser.cookies["access_token"] for name, browser in browsers.items()}
    async with verifier.running():
        callers = {name: await verifier.verify(token) for name, token in tokens.items()}
        assert (await browsers["ada"].post("/api/auth/logout")).status_code == 200
        await service.auth.users.disable(callers["bob"].user_id, source=OPERATOR)
        await service.auth.users.delete(callers["eve"].user_id, source=OPERATOR)
        assert verifier._revocations is not None
        await verifier._revocations.poll()
        assert await refusal(verifier, tokens["ada"]) is Code.SESSION_ENDED
        assert await refusal(verifier, tokens["bob"]) is Code.SESSION_ENDED
        assert await refusal(verifier, tokens["eve"]) is Code.USER_NOT_FOUND
        assert await verifier.verify(tokens["joe"]) == callers["joe"]
        await service.auth.sessions.revoke_everyone(source=OPERATOR)
        await verifier._revocations.poll()
        assert await refusal(verifier, tokens["joe"]) is Code.SESSION_ENDED
        again = await service.browser().post("/api/auth/login", json=credentials("joe@example.com"))
        assert isinstance(await verifier.verify(again.cookies["access_token"]), Caller)


async def test_a_key_retired_at_once_is_dropped_by_the_feed(
    service: Service, door: Door, clock: ManualClock, feed_token: str
) -> None:
    """Whatever the keys' age, and though a cache still showed it: no token of it is taken after the next look."""
    verifier, token = follower_of(door, clock, feed_token), await access_token(service)
    async with verifier.running():
        assert isinstance(await verifier.verify(token), Caller)
        cached = await service.browser().get(KEYS)
        door.faults[KEYS] = Response(cached.content, headers={"Cache-Control": "max-age=300"})
        kid = service.auth.parts.ring.current.signing.kid
        forged = Genuine.of(token, service)
        await service.auth.sessions.retire_key_at_once(kid, source=OPERATOR)
        await service.auth.parts.core.feed.poll()
        assert verifier._revocations is not None
        await verifier._revocations.poll()
        # What shows the old key is an answer of before: it is asked for again a second later, and not in 300.
        await verifier._keys.close()
        clock.suspend(seconds=1)
        door.faults.pop(KEYS)
        verifier._keys.current()
        await verifier._keys.close()
        assert verifier._keys.current().keys() == service.auth.parts.ring.current.verifying.keys()
        # With the epoch that is to come, as whoever stole the key would write it.
        for text in (token, forged.with_claims(epoch=1), forged.with_claims(epoch=EPOCH_AHEAD)):
            assert await refusal(verifier, text) is Code.INVALID_TOKEN


async def test_nobody_is_let_in_on_stale_knowledge(
    service: Service, door: Door, clock: ManualClock, feed_token: str
) -> None:
    """503 when the last good look began longer ago than the limit; good again with the next."""
    verifier, token = follower_of(door, clock, feed_token, max_lag_seconds=10), await access_token(service)
    with pytest.raises(RevocationsUnknownError):
        await verifier.verify(token)
    async with verifier.running():
        assert verifier._revocations is not None
        door.faults[FEED] = Response(status_code=500)
        assert isinstance(await verifier.verify(token), Caller)
        clock.suspend(seconds=10)
        assert isinstance(await verifier.verify(token), Caller)
        clock.suspend(seconds=0.001)
        with pytest.raises(RevocationsUnknownError):
            await verifier.verify(token)
        door.faults.clear()
        await service.auth.parts.core.feed.poll()
        await verifier._revocations.poll()
        assert isinstance(await verifier.verify(token), Caller)


async def test_a_failure_and_what_it_may_have_hidden(
    service: Service, door: Door, clock: ManualClock, feed_token: str
) -> None:
    """After a look that failed, and every five minutes, all is read again; what is known stays known meanwhile."""
    verifier = follower_of(door, clock, feed_token)
    browser = await service.registered()
    token = browser.cookies["access_token"]
    followed = verifier._revocations
    assert followed is not None
    await followed.poll()
    await browser.post("/api/auth/logout")
    await followed.poll()
    page = {"cursor": "1", "resync": True, "more": False, "entries": [], "retired_keys": []}
    broken: object
    for broken in ({**page, "entries": [{}]}, {**page, "more": "?"}, {"cursor": "1"}, []):
        door.faults[FEED] = JSONResponse(broken)
        with pytest.raises(IssuerError, match="no page"):
            await followed.poll()
        assert await refusal(verifier, token) is Code.SESSION_ENDED
    page |= {"more": True}
    door.faults[FEED] = JSONResponse(page)
    with pytest.raises(IssuerError, match="does not go on"):
        await followed.poll()
    door.faults[FEED] = told = Told(service.app)
    await followed.poll()
    await followed.poll()
    for seconds in (299, 1):
        clock.suspend(seconds=seconds)
        await service.auth.parts.core.feed.poll()
        await followed.poll()
    assert [bool(query) for query in told.queries] == [False, True, True, False]
    assert await refusal(verifier, token) is Code.SESSION_ENDED


class Told:
    """Passes on, and notes with which query it was asked."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.queries: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.queries.append(scope["query_string"])
        await self._app(scope, receive, send)


async def test_it_follows_by_itself(service: Service, door: Door, clock: ManualClock, feed_token: str) -> None:
    """Within `running()` a sign-out is soon known, and the feed token goes nowhere else."""
    verifier, browser = follower_of(door, clock, feed_token), await service.registered()
    token = browser.cookies["access_token"]
    async with verifier.running():
        assert isinstance(await verifier.verify(token), Caller)
        await browser.post("/api/auth/logout")
        async with asyncio.timeout(HANG_SECONDS):
            while True:
                try:
                    await verifier.verify(token)
                except RefusedError:
                    break
                await asyncio.sleep(0.02)
    assert feed_token not in repr(vars(verifier._revocations))
