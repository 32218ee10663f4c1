"""Origin: which pages of a browser may make it sign in, refresh, sign out or change something (CVE-2021-21241).

The table is that of the contract: Fetch metadata first, then Origin, exactly; no header at all is no browser.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from latchstring import Settings
from latchstring.testing import ManualClock
from tests.support.backends import ON_SQLITE
from tests.support.service import PASSWORD, Service, cheap_settings, credentials, registration, running_service

OWN, CLIENT = "http://localhost:8000", "http://localhost:3000"
PUBLIC, FRONT_END = "https://auth.example.com", "https://app.example.com"

Headers = list[tuple[str, str]]


@dataclass(frozen=True)
class Place:
    """Where a service stands, and which origins may call it there."""

    public_url: str | None
    client_origin: str | None
    trusted: frozenset[str]

    @property
    def address(self) -> str:
        """What a browser's address bar shows."""
        return self.public_url or OWN

    @property
    def front_end(self) -> str | None:
        """Whom CORS lets read the answers."""
        return self.client_origin or (CLIENT if self.public_url is None else None)


PLACES = {
    "development": Place(None, None, frozenset({OWN, CLIENT})),
    "development with a front end": Place(None, "http://localhost:5173", frozenset({OWN, "http://localhost:5173"})),
    "public": Place(PUBLIC, None, frozenset({PUBLIC})),
    "public with a front end": Place(PUBLIC, FRONT_END, frozenset({PUBLIC, FRONT_END})),
    "public on another port": Place(PUBLIC + ":8443", None, frozenset({PUBLIC + ":8443"})),
}

# Every origin that some place trusts, and a few that look like one; the whole list is in test_web.py beside this.
ORIGINS = [
    *(OWN, CLIENT, PUBLIC, FRONT_END, "http://localhost:5173", "https://auth.example.com:8443"),
    *("null", "", "https://evil.example", "https://auth.example.com.evil.example", "http://localhost:30000"),
]


@pytest.fixture(scope="module", params=PLACES.values(), ids=list(PLACES))
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.param
    return found


@pytest.fixture(scope="module")
async def there(place: Place, sqlite_template: Path) -> AsyncIterator["Doors"]:
    """A service at that place. Nothing here gets as far as a write, so the template itself will do."""
    settings = cheap_settings(
        f"sqlite:///{sqlite_template}", public_url=place.public_url, client_origin=place.client_origin
    )
    async with running_service(settings) as service:
        yield Doors(service, place.address)


class Doors:
    """Every door that the origin check stands before, each with a request that changes nothing when it gets through."""

    def __init__(self, service: Service, address: str) -> None:
        self.service = service
        self._address = address
        self._cookie = f"{service.auth.parts.tools.web.cookies.access_name}=a.b.c"

    async def knock(self, door: str, headers: Headers) -> bool:
        """Sends one request; tells whether it got past the check."""
        method, path = door.split()
        async with self.service.browser(self._address) as browser:
            sent = httpx2.Headers([*headers, ("Cookie", self._cookie)])
            answer = await browser.request(method, path, headers=sent, json={} if method == "PATCH" else None)
        if answer.json().get("code") == "origin_not_allowed":
            assert answer.status_code == 403
            assert "set-cookie" not in answer.headers
            return False
        assert answer.json().get("code", "success") in {
            *("malformed_json", "missing_refresh_token", "invalid_token", "unsupported_media_type", "success"),
        }
        return True


CREDENTIAL_DOORS = [
    *("POST /api/auth/register", "POST /api/auth/login", "POST /api/auth/refresh", "GET /api/auth/refresh"),
    *("POST /api/auth/logout", "POST /api/auth/token", "POST /api/auth/confirm", "POST /api/auth/password/change"),
]
GUARDED_DOORS = [
    *("PATCH /api/auth/me", "GET /api/auth/me", "GET /api/dashboard", "GET /api/dashboard/dashboard"),
    *("GET /api/auth/sessions", "DELETE /api/auth/sessions", "DELETE /api/auth/sessions/{session_id}"),
]
DOORS = [*CREDENTIAL_DOORS, *GUARDED_DOORS]


async def test_these_are_all_the_doors(there: Doors) -> None:
    """A route that documents the refusal is tried below, and no other: a new one can't be forgotten here."""
    documented = {
        f"{method.upper()} {path}"
        for path, methods in there.service.app.openapi()["paths"].items()
        for method, operation in methods.items()
        if "origin_not_allowed" in str(operation["responses"].get("403"))
    }
    assert documented == set(DOORS)


@pytest.mark.parametrize("site", [None, "same-site", "cross-site"])
async def test_only_an_exact_origin_of_ours_passes(there: Doors, place: Place, site: str | None) -> None:
    """At every door: our origin and the front end's to the letter, nobody else's, whatever it resembles."""
    metadata = [] if site is None else [("Sec-Fetch-Site", site)]
    for origin in ORIGINS:
        for door in DOORS:
            passed = await there.knock(door, [("Origin", origin), *metadata])
            assert passed == (origin in place.trusted), (door, origin)


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ([], True),
        ([("Sec-Fetch-Site", "same-origin")], True),
        ([("Sec-Fetch-Site", "none")], True),
        ([("Sec-Fetch-Site", "same-origin"), ("Origin", "null")], True),
        ([("Sec-Fetch-Site", "none"), ("Origin", "https://evil.example")], True),
        ([("Sec-Fetch-Site", "same-site")], False),
        ([("Sec-Fetch-Site", "cross-site")], False),
        ([("Sec-Fetch-Site", "")], False),
        ([("Sec-Fetch-Site", "Same-Origin")], False),
        ([("Sec-Fetch-Site", "same-origin, none")], False),
        ([("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Site", "same-origin")], False),
        ([("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site")], False),
        ([("Sec-Fetch-Mode", "cors"), ("Sec-Fetch-Site", "cross-site")], False),
        ([("Referer", "https://evil.example/")], True),
    ],
    ids=str,
)
async def test_fetch_metadata_comes_first(there: Doors, headers: Headers, passes: bool) -> None:  # noqa: FBT001
    """same-origin and none pass, no header at all is no browser, and anything else without an Origin is refused."""
    for door in DOORS:
        assert await there.knock(door, headers) == passes, door


async def test_two_origins_are_none(there: Doors, place: Place) -> None:
    """No browser sends two: a second one never mends the first, nor the first the second."""
    own, evil = place.address, "https://evil.example"
    for pair in ([own, evil], [evil, own], [own, own]):
        for door in DOORS:
            assert not await there.knock(door, [("Origin", origin) for origin in pair]), (door, pair)


@pytest.mark.parametrize("origin", [None, "https://evil.example", "null"])
async def test_a_visitor_who_follows_a_link_here_is_welcome(there: Doors, origin: str | None) -> None:
    """A top-level navigation reaches a guarded GET from anywhere, and neither GET /refresh nor anything unsafe."""
    navigation = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")]
    headers = navigation + ([("Origin", origin)] if origin is not None else [])
    for door in DOORS:
        expected = door in GUARDED_DOORS and door.startswith("GET")
        assert await there.knock(door, headers) == expected, door


@pytest.mark.parametrize("destination", ["iframe", "embed", "object", "image", "empty"])
async def test_what_is_embedded_elsewhere_is_no_navigation(there: Doors, destination: str) -> None:
    """A frame or an image of a foreign page loads nothing with the visitor's cookies."""
    for mode in ("navigate", "nested-navigate", "no-cors", "cors"):
        headers = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", mode), ("Sec-Fetch-Dest", destination)]
        for door in DOORS:
            assert not await there.knock(door, headers), (door, mode)


@ON_SQLITE
async def test_the_host_header_is_an_origin_only_without_a_public_url(settings: Settings, clock: ManualClock) -> None:
    """With a public URL, a request for another host is no way to make that host's pages ours."""
    evil = {"Host": "evil.example", "Origin": "http://evil.example"}
    for public_url, status in ((None, 422), (PUBLIC, 403)):
        async with running_service(settings.model_copy(update={"public_url": public_url}), clock) as service:
            answer = await service.browser(PUBLIC).post("/api/auth/login", json={}, headers=evil)
            assert answer.status_code == status


# --- what a refused request leaves as it was --------------------------------------------------------------------------

FOREIGN = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}


@ON_SQLITE
async def test_a_foreign_page_signs_nobody_out(service: Service) -> None:
    """Logout from a foreign page is 403, clears no cookie, and the session lives on."""
    browser = await service.registered()
    answer = await browser.post("/api/auth/logout", headers=FOREIGN)
    assert (answer.status_code, answer.json()["code"]) == (403, "origin_not_allowed")
    assert "set-cookie" not in answer.headers
    assert (await browser.get("/api/dashboard")).status_code == 200
    assert (await browser.post("/api/auth/refresh")).status_code == 200


@ON_SQLITE
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_refused_refresh_uses_no_token_up(service: Service, method: str) -> None:
    """However often a foreign page tries: the token is worth what it was, and its first use is no theft."""
    browser = await service.registered()
    token = browser.cookies["refresh_token"]
    navigation = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    for headers in (FOREIGN, navigation, FOREIGN):
        answer = await browser.request(method, "/api/auth/refresh", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "origin_not_allowed")
        assert browser.cookies["refresh_token"] == token
        service.clock.advance(minutes=5)
    answer = await browser.request(method, "/api/auth/refresh", headers={"Origin": CLIENT})
    assert answer.status_code == 200
    assert browser.cookies["refresh_token"] != token


@ON_SQLITE
async def test_a_foreign_page_proves_nothing_and_changes_no_password(service: Service) -> None:
    """Not even with a bearer token: at these doors cookies are set, or everyone else is signed out."""
    browser = await service.registered()
    bearer = {"Authorization": f"Bearer {browser.cookies['access_token']}"}
    change = {"current_password": PASSWORD, "new_password": "another horse battery"}
    for path, body in (("confirm", {"password": PASSWORD}), ("password/change", change)):
        for headers in (FOREIGN, FOREIGN | bearer):
            answer = await browser.post(f"/api/auth/{path}", json=body, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "origin_not_allowed")
            assert "set-cookie" not in answer.headers
    assert (await service.browser().post("/api/auth/login", json=credentials())).status_code == 200


@ON_SQLITE
async def test_a_foreign_page_registers_and_signs_in_nobody(service: Service) -> None:
    """Login CSRF: a foreign page can't sign its visitor in as the attacker, and the account is not even made."""
    browser = service.browser(headers=FOREIGN)
    form = {"grant_type": "password", "username": "ada@example.com", "password": PASSWORD}
    for path, body in (
        ("register", {"json": registration()}),
        ("login", {"json": credentials()}),
        ("token", {"data": form}),
    ):
        answer = await browser.post(f"/api/auth/{path}", **body)
        assert (answer.status_code, answer.json()["code"]) == (403, "origin_not_allowed")
    assert (await service.browser().post("/api/auth/login", json=credentials())).status_code == 400


@ON_SQLITE
async def test_a_bearer_token_needs_no_origin_on_guarded_routes(service: Service) -> None:
    """A browser never adds one by itself: who sends it holds it. With the cookie alone the same request is refused."""
    browser = await service.registered()
    bearer = {"Authorization": f"Bearer {browser.cookies['access_token']}"}
    statuses = {"DELETE /api/auth/sessions": 204, "DELETE /api/auth/sessions/{session_id}": 404}
    for door in GUARDED_DOORS:
        method, path = door.split()
        body = {"first_name": "Ada"} if method == "PATCH" else None
        answer = await browser.request(method, path, headers=FOREIGN, json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "origin_not_allowed")
        answer = await service.browser().request(method, path, headers={**FOREIGN, **bearer}, json=body)
        assert answer.status_code == statuses.get(door, 200), door
    basic = {**FOREIGN, "Authorization": "Basic YTpi"}
    assert (await browser.get("/api/dashboard", headers=basic)).status_code == 403


# --- CORS: what the browser is told (CVE-2024-25124, CVE-2024-41657: a wildcard with credentials) ---------------------


def preflight(origin: str, method: str = "POST", headers: str = "content-type") -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": headers,
    }


async def test_cors_answers_the_front_end_with_credentials_and_nobody_else(there: Doors, place: Place) -> None:
    """Preflight and answer name the front end's origin exactly; any other gets no allow-origin, and never a `*`."""
    async with there.service.browser(place.address) as browser:
        for origin in ORIGINS:
            asked = [
                await browser.options("/api/auth/login", headers=preflight(origin)),
                await browser.options(
                    "/api/auth/me", headers=preflight(origin, "PATCH", "authorization, content-type")
                ),
                await browser.get("/api/dashboard", headers={"Origin": origin}),
                await browser.post("/api/auth/login", json={}, headers={"Origin": origin}),
                await browser.get("/nowhere", headers={"Origin": origin}),
            ]
            for answer in asked:
                assert "*" not in {value for name, value in answer.headers.items() if name.startswith("access-control")}
                if origin == place.front_end:
                    assert answer.headers["access-control-allow-origin"] == origin
                    assert answer.headers["access-control-allow-credentials"] == "true"
                    assert "Origin" in answer.headers["vary"]
                else:
                    assert "access-control-allow-origin" not in answer.headers, origin
            assert all(answer.is_success == (origin == place.front_end) for answer in asked[:2]), origin


@ON_SQLITE
@pytest.mark.parametrize(
    ("method", "headers"), [("PUT", "content-type"), ("POST", "x-evil"), ("TRACE", "content-type")], ids=str
)
async def test_cors_allows_the_front_end_no_more_than_it_needs(service: Service, method: str, headers: str) -> None:
    """Methods and headers that no route knows are refused at the preflight."""
    answer = await service.browser().options("/api/auth/login", headers=preflight(CLIENT, method, headers))
    assert answer.is_client_error
