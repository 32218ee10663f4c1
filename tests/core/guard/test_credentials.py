"""Transports: the two ways a token travels, cookie and `Authorization: Bearer`, and what happens when both come."""

import itertools
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie

import httpx2
import pytest

from latchstring import Settings
from latchstring.testing import ManualClock
from tests.support.backends import ON_SQLITE
from tests.support.service import Service, credentials, registration, running_service

PUBLIC = "https://auth.example.com"


@pytest.fixture
async def https(settings: Settings, clock: ManualClock) -> AsyncIterator[Service]:
    """A service that people reach by https."""
    async with running_service(settings.model_copy(update={"public_url": PUBLIC}), clock) as running:
        yield running


def cookies_set(answer: httpx2.Response) -> dict[str, dict[str, str]]:
    """Returns name → attributes, in lower case, of every cookie an answer sets; `value` is one of them."""
    found: dict[str, dict[str, str]] = {}
    for line in answer.headers.get_list("set-cookie"):
        ((name, morsel),) = SimpleCookie(line).items()
        assert name not in found
        found[name] = {key: str(value) for key, value in morsel.items() if value} | {"value": morsel.value}
    return found


def cookie(**values: str) -> dict[str, str]:
    return {"Cookie": "; ".join(f"{name}={value}" for name, value in values.items())}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def asked(
    service: Service, headers: dict[str, str] | list[tuple[str, str]], path: str = "/api/auth/me", method: str = "GET"
) -> tuple[int, str | None]:
    """Sends one request with these headers and nothing else; returns the status, and the code or the address."""
    async with service.browser() as browser:
        answer = await browser.request(method, path, headers=httpx2.Headers(headers))
    return answer.status_code, answer.json().get("code", answer.json().get("email"))


# --- what is set ------------------------------------------------------------------------------------------------------


@ON_SQLITE
async def test_cookies_by_http_are_for_this_machine(service: Service) -> None:
    """HttpOnly, SameSite=Lax, Path=/, the token's life to the second; not Secure, and under the tutorial's names."""
    answer = await service.browser().post("/api/auth/register", json=registration())
    cookies = cookies_set(answer)
    for name, seconds in (("access_token", 15 * 60), ("refresh_token", 60 * 60)):
        value = cookies[name].pop("value")
        assert value.count(".") == 2
        assert cookies.pop(name) == {"httponly": "True", "max-age": str(seconds), "path": "/", "samesite": "lax"}
    assert cookies == {}


@ON_SQLITE
async def test_cookies_by_https_are_host_cookies(https: Service) -> None:
    """`__Host-`, Secure, no Domain, Path=/: no sibling subdomain can plant one (RFC 6265bis, 4.1.3.2)."""
    browser = await https.registered()
    for answer in (
        await browser.post("/api/auth/login", json=credentials()),
        await browser.post("/api/auth/refresh"),
        await browser.post("/api/auth/logout"),
    ):
        cookies = cookies_set(answer)
        assert cookies.keys() == {"__Host-access_token", "__Host-refresh_token"}
        for attributes in cookies.values():
            assert attributes["secure"] == attributes["httponly"] == "True"
            assert (attributes["samesite"], attributes["path"]) == ("lax", "/")
            assert "domain" not in attributes


@ON_SQLITE
async def test_max_age_is_what_is_left_of_the_token(service: Service) -> None:
    """A repeated answer carries the first one's tokens: its cookies live no longer than those do."""
    browser = await service.registered()
    old = browser.cookies["refresh_token"]
    first = await browser.post("/api/auth/refresh")
    service.clock.advance(seconds=20)
    again = await service.browser().post("/api/auth/refresh", headers=cookie(refresh_token=old))
    for name, seconds in (("access_token", 15 * 60), ("refresh_token", 60 * 60)):
        assert cookies_set(first)[name]["max-age"] == str(seconds)
        assert cookies_set(again)[name]["max-age"] == str(seconds - 20)


@ON_SQLITE
async def test_what_a_request_claims_does_not_make_it_https(service: Service) -> None:
    """Https is what the public URL says: forwarded headers change neither names nor attributes."""
    claims = {"X-Forwarded-Proto": "https", "Forwarded": "proto=https", "X-Forwarded-Ssl": "on"}
    answer = await service.browser("https://localhost:8000").post(
        "/api/auth/register", json=registration(), headers=claims
    )
    assert cookies_set(answer).keys() == {"access_token", "refresh_token"}
    assert "strict-transport-security" not in answer.headers


# --- what is read -----------------------------------------------------------------------------------------------------


@ON_SQLITE
async def test_either_way_lets_in(service: Service) -> None:
    """The cookie, the header in any case of the scheme, and the cookie beside another scheme's header."""
    access = (await service.registered()).cookies["access_token"]
    for headers in (
        cookie(access_token=access),
        bearer(access),
        {"Authorization": f"bearer   {access}"},
        {"Authorization": f"BEARER {access} "},
        cookie(access_token=access) | {"Authorization": "Basic YTpi"},
        cookie(other="a b", access_token=access, x="y"),
    ):
        assert await asked(service, headers) == (200, "ada@example.com"), headers


@ON_SQLITE
async def test_only_the_names_in_force_are_read(service: Service, https: Service) -> None:
    """The plain names mean nothing by https, the prefixed ones nothing by http; at the guard, refresh and logout."""
    for place, in_force, foreign in ((service, "", "__Host-"), (https, "__Host-", "")):
        browser = await place.registered(f"ada{in_force.strip('_').lower()}@example.com")
        access, refresh = (browser.cookies[f"{in_force}{kind}_token"] for kind in ("access", "refresh"))
        wrong = {f"{foreign}access_token": access, f"{foreign}refresh_token": refresh}
        right = {f"{in_force}access_token": access, f"{in_force}refresh_token": refresh}
        assert (await asked(place, cookie(**wrong)))[1] == "missing_token"
        assert (await asked(place, cookie(**wrong), "/api/auth/refresh", "POST"))[1] == "missing_refresh_token"
        assert (await asked(place, cookie(**wrong), "/api/auth/logout", "POST"))[0] == 200
        # A name not in force is no duplicate either.
        assert (await asked(place, cookie(**wrong, **right)))[0] == 200


SPELLINGS = [
    *(
        b" __Host-access_token\xa0",
        b"\xa0__Host-access_token",
        b"\xe2\x80\x80__Host-access_token",
        b"__Host-access_token ",
    ),
    *(
        b"__Host-access_token\x0b",
        b'"__Host-access_token"',
        b"__host-access_token",
        b"__HOST-ACCESS_TOKEN",
        b"access_token",
    ),
    *(
        b"__Host%2Daccess_token",
        b"__Secure-access_token",
        b"$Version=1; $__Host-access_token",
        b"\xc2\x85__Host-access_token",
    ),
    *(b"__Host-access_token\0", b"a,__Host-access_token", b'a="; __Host-access_token"', b"=__Host-access_token"),
]


@ON_SQLITE
async def test_no_other_spelling_of_a_name_is_read(https: Service) -> None:
    """What a sibling subdomain can plant never passes for the `__Host-` cookie ("Cookie Chaos", 2025)."""
    token = (await https.registered()).cookies["__Host-access_token"].encode()
    async with https.browser() as browser:
        for name in SPELLINGS:
            planted = name + b"=" + token
            answer = await browser.get("/api/auth/me", headers=[(b"cookie", planted)])
            assert (answer.status_code, answer.json()["code"]) == (401, "missing_token"), name
            beside = planted + b"; __Host-access_token=" + token
            assert (await browser.get("/api/auth/me", headers=[(b"cookie", beside)])).status_code == 200, name


@ON_SQLITE
async def test_a_duplicated_cookie_is_refused(service: Service) -> None:
    """Two cookies of our name, even the same twice, even when a good header came along: 400 `duplicate_cookie`."""
    browser = await service.registered()
    access, refresh = browser.cookies["access_token"], browser.cookies["refresh_token"]
    for headers in (
        [("Cookie", f"access_token={access}; access_token={access}")],
        [("Cookie", f"access_token={access}"), ("Cookie", "access_token=planted")],
        [("Cookie", f"access_token=; access_token={access}")],
        [("Cookie", "access_token=a; access_token=b"), ("Authorization", f"Bearer {access}")],
    ):
        assert await asked(service, headers) == (400, "duplicate_cookie")
    twice = [("Cookie", f"refresh_token={refresh}; refresh_token={refresh}")]
    for method in ("POST", "GET"):
        assert await asked(service, twice, "/api/auth/refresh", method) == (400, "duplicate_cookie")
    # A refused request used nothing up.
    assert (await browser.post("/api/auth/refresh")).status_code == 200


@ON_SQLITE
async def test_both_ways_at_once_must_be_one_user(service: Service) -> None:
    """Different users: refused. The same user: the header counts, for better and for worse."""
    ada = (await service.registered()).cookies["access_token"]
    later = (await service.browser().post("/api/auth/login", json=credentials())).cookies["access_token"]
    bob = (await service.registered("bob@example.com")).cookies["access_token"]

    assert await asked(service, bearer(ada) | cookie(access_token=bob)) == (400, "credentials_conflict")
    assert await asked(service, bearer(bob) | cookie(access_token=ada)) == (400, "credentials_conflict")
    assert await asked(service, bearer(ada) | cookie(access_token=later)) == (200, "ada@example.com")

    await service.browser().post("/api/auth/logout", headers=bearer(ada))
    assert await asked(service, bearer(ada) | cookie(access_token=later)) == (401, "session_ended")
    assert await asked(service, bearer(later) | cookie(access_token=ada)) == (200, "ada@example.com")
    assert await asked(service, bearer("a.b.c") | cookie(access_token=later)) == (401, "invalid_token")
    assert await asked(service, {"Authorization": "Bearer"} | cookie(access_token=later)) == (
        403,
        "invalid_authorization_header",
    )


@ON_SQLITE
async def test_an_expired_cookie_of_somebody_else_is_a_conflict_still(service: Service) -> None:
    """It is genuine, so it names somebody; who is meant is not for the server to guess."""
    ada = (await service.registered()).cookies["access_token"]
    service.clock.advance(minutes=20)
    bob = (await service.registered("bob@example.com")).cookies["access_token"]
    assert await asked(service, bearer(bob) | cookie(access_token=ada)) == (400, "credentials_conflict")


@ON_SQLITE
@pytest.mark.parametrize("way", ["cookie", "header"])
async def test_the_kinds_are_never_exchanged(service: Service, way: str) -> None:
    """A refresh token opens no route, an access token renews no session, by either way."""
    browser = await service.registered()
    access, refresh = browser.cookies["access_token"], browser.cookies["refresh_token"]
    as_access = bearer(refresh) if way == "header" else cookie(access_token=refresh)
    as_refresh = bearer(access) if way == "header" else cookie(refresh_token=access)
    assert await asked(service, as_access) == (401, "invalid_token")
    assert await asked(service, as_refresh, "/api/auth/refresh", "POST") == (401, "invalid_token")


@ON_SQLITE
async def test_every_401_challenges_and_says_when_a_token_was_sent(service: Service) -> None:
    """RFC 6750, section 3: `Bearer` where none was shown, `error="invalid_token"` where one was."""
    browser = await service.registered()
    access = browser.cookies["access_token"]
    none = await service.browser().get("/api/dashboard")
    forged = await service.browser().get("/api/dashboard", headers=bearer("a.b.c"))
    service.clock.advance(minutes=15)
    expired = await service.browser().get("/api/dashboard", headers=cookie(access_token=access))
    await browser.post("/api/auth/logout")
    service.clock.advance(minutes=-15)
    ended = await service.browser().get("/api/dashboard", headers=bearer(access))
    for answer, code, challenge in (
        (none, "missing_token", "Bearer"),
        (forged, "invalid_token", 'Bearer error="invalid_token"'),
        (expired, "token_expired", 'Bearer error="invalid_token"'),
        (ended, "session_ended", 'Bearer error="invalid_token"'),
    ):
        assert (answer.status_code, answer.json()["code"]) == (401, code)
        assert answer.headers["www-authenticate"] == challenge
    assert none.json()["detail"] == expired.json()["detail"] == "You must refresh"


# --- refresh ----------------------------------------------------------------------------------------------------------


@ON_SQLITE
async def test_refresh_takes_the_token_by_either_way(service: Service) -> None:
    """Cookie or header; and a client that sends its access token on every request means the cookie here."""
    browser = await service.registered()
    for in_header, in_cookie in (
        (None, "refresh"),
        ("refresh", None),
        ("access", "refresh"),
        ("refresh", "a.b.c"),
        ("refresh", "refresh"),
    ):
        headers = bearer(browser.cookies[f"{in_header}_token"]) if in_header else {"Authorization": "Basic YTpi"}
        if in_cookie:
            headers |= cookie(refresh_token=browser.cookies.get(f"{in_cookie}_token") or in_cookie)
        async with service.browser() as client:
            answer = await client.post("/api/auth/refresh", headers=headers)
        assert answer.status_code == 200, answer.text
        browser.cookies = answer.cookies


@ON_SQLITE
async def test_refresh_with_the_tokens_of_two_users_is_refused(service: Service) -> None:
    """Whichever kind the header is, it must not name another user than the cookie; nothing is used up by it."""
    ada, bob = await service.registered(), await service.registered("bob@example.com")
    bobs = cookie(refresh_token=bob.cookies["refresh_token"])
    for kind in ("access_token", "refresh_token"):
        headers = bearer(ada.cookies[kind]) | bobs
        assert await asked(service, headers, "/api/auth/refresh", "POST") == (400, "credentials_conflict")
    service.clock.advance(minutes=1)
    for browser in (ada, bob):
        assert (await browser.post("/api/auth/refresh")).status_code == 200


# --- logout -----------------------------------------------------------------------------------------------------------


@ON_SQLITE
async def test_logout_succeeds_with_nothing_and_twice(service: Service) -> None:
    """No token, a forged one, a malformed header, the same one again: signed out is signed out."""
    browser = await service.registered()
    shown = cookie(**dict(browser.cookies))
    for headers in ({}, bearer("a.b.c"), {"Authorization": "Bearer"}, {"Authorization": "Basic YTpi"}, shown, shown):
        answer = await service.browser().post("/api/auth/logout", headers=headers)
        assert (answer.status_code, answer.json()) == (200, {"status": "success"})
        cleared = cookies_set(answer)
        assert cleared.keys() == {"access_token", "refresh_token"}
        assert all(attributes["max-age"] == "0" for attributes in cleared.values() if "max-age" in attributes)
        assert all(attributes["value"] == "" for attributes in cleared.values())


@ON_SQLITE
@pytest.mark.parametrize("age", ["fresh", "expired", "previous generation"])
async def test_any_genuine_token_signs_out(service: Service, age: str) -> None:
    """Either kind by either way, expired and previous ones too: the newest tokens of its session are worth nothing."""
    await service.registered()
    for kind, way in itertools.product(("access", "refresh"), (bearer, lambda token: cookie(refresh_token=token))):
        browser = service.browser()
        await browser.post("/api/auth/login", json=credentials())
        shown = browser.cookies[f"{kind}_token"]
        if age == "previous generation":
            assert (await browser.post("/api/auth/refresh")).status_code == 200
        newest = cookie(**dict(browser.cookies))
        minutes = 61 if age == "expired" else 0
        service.clock.advance(minutes=minutes)
        assert await asked(service, way(shown), "/api/auth/logout", "POST") == (200, None)
        service.clock.advance(minutes=-minutes)
        assert await asked(service, newest) == (401, "session_ended")
        assert await asked(service, newest, "/api/auth/refresh", "POST") == (401, "session_ended")


async def test_logout_ends_every_session_of_which_a_token_is_shown(service: Service) -> None:
    """Duplicates, several headers, lists, other users' tokens: whoever signs out means all of them, and no others."""
    browsers = [await service.registered(f"user{number}@example.com") for number in range(6)]
    tokens = [
        browser.cookies["access_token" if number % 2 else "refresh_token"] for number, browser in enumerate(browsers)
    ]
    headers = [
        ("Cookie", f"access_token={tokens[0]}; access_token={tokens[1]}; refresh_token=planted"),
        ("Cookie", f"refresh_token={tokens[2]}"),
        ("Authorization", f"Bearer {tokens[3]}, Bearer {tokens[4]}"),
        ("Authorization", "Basic YTpi"),
    ]
    assert await asked(service, headers, "/api/auth/logout", "POST") == (200, None)
    for browser in browsers[:5]:
        assert (await browser.get("/api/auth/me")).json()["code"] == "session_ended"
    assert (await browsers[5].get("/api/auth/me")).status_code == 200
