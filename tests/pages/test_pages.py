"""Pages over HTTP: the forms, the way back in, and what every page carries."""

import contextlib
import itertools
import re
import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import httpx2
import pytest

from latchstring import Settings, SubscriberError
from latchstring.core.revocations.rules import RevocationReason
from latchstring.foundation.events import OPERATOR, UserRenamed
from latchstring.foundation.web.pages.assets import STATIC
from latchstring.foundation.web.pages.policy import CONTENT_SECURITY_POLICY, HEADERS
from latchstring.testing import ManualClock
from tests.support.backends import WITH_PAGES
from tests.support.pages import NAVIGATION, SIGN_UP, Visitor, field, hidden, signed_up, text, title, visitor
from tests.support.service import PASSWORD, Service, cheap_settings, credentials, registration, running_service

pytestmark = WITH_PAGES

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"])
GUARDED = ["/dashboard", "/account", "/account/password", "/account/sessions", "/account/confirm"]
CHANGE_PASSWORD = "/.well-known/change-password"
OPEN = ["/sign-in", "/sign-up", "/signed-out"]


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> AsyncIterator[Service]:
    """One application for all tests that leave it as it was: building it takes longer than most of them."""
    path = tmp_path_factory.mktemp("pages") / "latchstring.db"
    shutil.copy(sqlite_template, path)
    async with running_service(cheap_settings(f"sqlite:///{path}")) as found:
        yield found


@pytest.fixture
async def service(running: Service) -> AsyncIterator[Service]:
    """That one, without the users of the test before. Its clock is turned by minutes only."""
    yield running
    for user in await running.auth.users.list():
        await running.auth.users.delete(user.id)


@pytest.fixture
async def own(settings: Settings, clock: ManualClock) -> AsyncIterator[Service]:
    """One for a test that changes it, turns its clock by weeks, or looks at what reaches a database."""
    async with running_service(settings, clock) as found:
        yield found


@pytest.fixture
async def ada(service: Service) -> Visitor:
    return await signed_up(service)


# --- sign up, sign in, sign out ---------------------------------------------------------------------------------------


async def test_the_address_that_is_printed_leads_to_a_dashboard(own: Service) -> None:
    """Who opens it is asked to sign in, may sign up, and sees the dashboard; it is the JSON routes' own account."""
    came = visitor(own)
    first = await came.goes("/")
    assert (first.status_code, first.url.path) == (200, "/sign-in")
    assert 'href="/sign-up"' in first.text
    seen = await came.sends_and_goes("/sign-up", SIGN_UP)
    assert (seen.status_code, seen.url.path) == (200, "/dashboard")
    assert "Hello from the dashboard!" in text(seen)
    assert "Ada Lovelace" in text(seen)
    assert (await came.browser.get("/api/auth/me")).json()["email"] == "ada@example.com"
    assert (await came.goes("/")).url.path == "/dashboard"
    assert (await came.goes("/sign-in")).url.path == "/dashboard"
    assert (await came.goes("/sign-up")).url.path == "/dashboard"
    assert (await came.goes("/signed-out")).url.path == "/dashboard"


async def test_the_cookies_are_those_of_the_json_route(service: Service) -> None:
    """HttpOnly, SameSite=Lax, Path=/, as long as the tokens live."""
    by_page = await visitor(service).sends("/sign-up", SIGN_UP)
    by_json = await service.browser().post("/api/auth/register", json=registration("bob@example.com"))

    def attributes(answer: httpx2.Response) -> list[str]:
        return [re.sub(r"=eyJ[^;]*", "", cookie) for cookie in answer.headers.get_list("set-cookie")]

    assert attributes(by_page) == attributes(by_json)


WRONG_FIELDS: list[tuple[dict[str, str], dict[str, str]]] = [
    ({"first_name": ""}, {"first_name": "Enter your first name."}),
    ({"last_name": "   "}, {"last_name": "Enter your last name."}),
    ({"last_name": "x" * 101}, {"last_name": "Use at most 100 characters."}),
    ({"first_name": "A\x07da"}, {"first_name": "Use letters, digits, spaces and signs only."}),
    ({"email": "nobody"}, {"email": "Enter an e-mail address, such as name@example.com."}),
    ({"email": ""}, {"email": "Enter your e-mail address."}),
    ({"email": "a@" + "b" * 300}, {"email": "Use at most 254 characters."}),
    ({"password": ""}, {"password": "Choose a password."}),
    ({"password": "short"}, {"password": "Use at least 8 characters."}),
    ({"password": "x" * 257}, {"password": "Use at most 256 characters."}),
    ({"email": "", "password": ""}, {"email": "Enter your e-mail address.", "password": "Choose a password."}),
]


async def test_what_is_wrong_is_said_of_each_field(service: Service, subtests: pytest.Subtests) -> None:
    """422 with the same page: a title that says so, a summary, a sentence at the field, and all but secrets kept."""
    for changes, wrong in WRONG_FIELDS:
        with subtests.test(str(changes)):
            filled = SIGN_UP | changes
            answer = await visitor(service).sends("/sign-up", filled | {"next": "/account"})
            assert answer.status_code == 422
            assert title(answer).startswith("Error: ")
            assert hidden(answer, "/sign-up") == {"next": "/account"}
            for name in SIGN_UP:
                shown = field(answer, name)
                assert ("aria-invalid" in shown) == (name in wrong)
                assert shown.get("value", "") == ("" if name == "password" else filled[name])
                if name in wrong:
                    error = re.search(
                        rf'id="{shown["aria-describedby"].split()[-1]}"[^>]*>(.*?)</p>', answer.text, re.DOTALL
                    )
                    assert error
                    assert error[1].endswith(wrong[name])
                    assert f'href="#{shown["id"]}"' in answer.text
            assert filled["password"] == "" or filled["password"] not in answer.text
            assert await service.auth.users.list() == []


async def test_an_address_that_has_an_account(service: Service, ada: Visitor) -> None:
    """Said at its field, and in no other spelling of it either."""
    answer = await visitor(service).sends("/sign-up", SIGN_UP | {"email": "ADA@example.com"})
    assert answer.status_code == 422
    assert "There is an account with this address already." in text(answer)
    assert field(answer, "email")["value"] == "ADA@example.com"


FAILED_SIGN_INS = [
    credentials(password="another password"),
    credentials("nobody@example.com"),
    credentials("no address"),
    credentials(password="short"),
    credentials(password="x" * 300),
]


@pytest.mark.usefixtures("ada")
async def test_one_answer_for_every_failed_sign_in(service: Service, subtests: pytest.Subtests) -> None:
    """The same sentence whatever was wrong; the address is kept, and the password is not."""
    for filled in FAILED_SIGN_INS:
        with subtests.test(str(filled)):
            answer = await visitor(service).sends("/sign-in", filled)
            assert answer.status_code == 422
            assert title(answer) == "Error: Sign in – Latchstring"
            assert "The e-mail address or the password is not right." in text(answer)
            assert field(answer, "email")["value"] == filled["email"]
            assert filled["password"] not in answer.text
            assert "set-cookie" not in answer.headers


async def test_an_empty_sign_in(service: Service) -> None:
    answer = await visitor(service).sends("/sign-in")
    assert answer.status_code == 422
    assert "Enter your e-mail address." in text(answer)
    assert "Enter your password." in text(answer)


async def test_signing_in_leads_to_where_one_was_going(service: Service, ada: Visitor) -> None:
    """Through the sign-in page, with the query and all."""
    came = visitor(service)
    asked = await came.goes("/account/sessions?done=ended")
    assert asked.url.path == "/sign-in"
    carried = hidden(asked, "/sign-in")
    assert carried == {"next": "/account/sessions?done=ended"}
    answer = await came.sends("/sign-in", credentials() | carried)
    assert (answer.status_code, answer.headers["location"]) == (303, "/account/sessions?done=ended")
    assert (await came.asks("/account/sessions")).status_code == 200


async def test_signing_out(service: Service, ada: Visitor) -> None:
    """Ends the session on the server, clears both cookies, and says so; twice is as good as once."""
    token = ada.browser.cookies["access_token"]
    answer = await ada.sends("/sign-out")
    assert (answer.status_code, answer.headers["location"]) == (303, "/signed-out")
    assert sorted(cookie.partition("=")[0] for cookie in answer.headers.get_list("set-cookie")) == [
        "access_token",
        "refresh_token",
    ]
    assert "signed out" in title(await ada.goes("/signed-out"))
    assert (await ada.goes("/dashboard")).url.path == "/sign-in"
    refused = await service.browser().get("/api/dashboard", headers={"Authorization": f"Bearer {token}"})
    assert refused.json()["code"] == "session_ended"
    assert (await ada.sends("/sign-out")).status_code == 303


@ON_SQLITE
async def test_signing_out_clears_the_cache_where_that_is_set(database_url: str) -> None:
    """As the JSON route does, by the same setting."""
    async with running_service(cheap_settings(database_url, logout_clears_cache=True)) as service:
        answer = await visitor(service).sends("/sign-out")
        assert answer.headers["clear-site-data"] == '"cache"'


@ON_SQLITE
async def test_guessing_on_the_page_is_guessing(settings: Settings, clock: ManualClock) -> None:
    """One door: ten wrong passwords on the page shut the JSON route as well, and the page says how long for."""
    limited = settings.model_copy(update={"limits": True})
    async with running_service(limited, clock) as service:
        await signed_up(service)
        came = visitor(service)
        for _ in range(10):
            assert (await came.sends("/sign-in", credentials(password="a wrong one"))).status_code == 422
        answer = await came.sends("/sign-in", credentials())
        assert answer.status_code == 429
        assert title(answer).startswith("Too many tries")
        assert int(answer.headers["retry-after"]) > 0
        assert "15 minutes" in text(answer)
        by_json = await service.browser().post("/api/auth/login", json=credentials())
        assert by_json.json()["code"] == "too_many_requests"


# --- the way back in --------------------------------------------------------------------------------------------------


async def test_who_is_not_signed_in_is_asked_to_be(service: Service, subtests: pytest.Subtests) -> None:
    for path in GUARDED:
        with subtests.test(path):
            answer = await visitor(service).goes(path)
            assert (answer.status_code, answer.url.path) == (200, "/sign-in")
            assert "ended" not in text(answer)


async def test_an_expired_token_is_renewed_on_the_way(
    service: Service, ada: Visitor, subtests: pytest.Subtests
) -> None:
    """By one redirect, whether the browser still has the token or has dropped it."""
    for path in GUARDED:
        with subtests.test(path):
            for site, dropped in (("same-origin", True), ("same-origin", False), ("none", True), ("none", False)):
                service.clock.advance(minutes=16)
                if dropped:
                    ada.browser.cookies.delete("access_token")
                asked = await ada.asks(path + "?a=b", **{"Sec-Fetch-Site": site})
                assert asked.status_code == 303
                assert asked.headers["location"].startswith("/renew?next=")
                renewed = await ada.asks(asked.headers["location"], **{"Sec-Fetch-Site": site})
                assert (renewed.status_code, renewed.headers["location"]) == (303, path + "?a=b")
                assert (await ada.asks(path, **{"Sec-Fetch-Site": site})).status_code == 200


FROM_ELSEWHERE = {
    "another site": {"Sec-Fetch-Site": "cross-site"},
    "a sibling subdomain": {"Sec-Fetch-Site": "same-site"},
    "a word that is none": {"Sec-Fetch-Site": "SAME-ORIGIN"},
    "an empty word": {"Sec-Fetch-Site": ""},
}


async def test_who_comes_from_another_site_is_renewed_by_a_form_of_ours(
    service: Service, ada: Visitor, subtests: pytest.Subtests
) -> None:
    """FOUND.md T25 (ASVS 5.0, 3.5.3): the link rotates nothing and sets no cookie; its page sends a form."""
    for name, headers in FROM_ELSEWHERE.items():
        with subtests.test(name):
            service.clock.advance(minutes=16)
            before = dict(ada.browser.cookies)
            shown = await ada.goes("/account?a=b", **headers)
            for _ in range(3):
                service.clock.advance(seconds=40)
                shown = await ada.asks(shown.url.raw_path.decode(), **headers)
                assert (shown.status_code, title(shown)) == (200, "One moment – Latchstring")
                assert "set-cookie" not in shown.headers
            assert dict(ada.browser.cookies) == before, "its first use is no theft, however often a link was followed"
            assert hidden(shown, "/renew/continue") == {"next": "/account?a=b"}
            assert "Continue" in text(shown)
            renewed = await ada.sends("/renew/continue", hidden(shown, "/renew/continue"))
            assert (renewed.status_code, renewed.headers["location"]) == (303, "/account?a=b")
            assert (await ada.asks("/account?a=b", **headers)).status_code == 200
            assert ada.browser.cookies["refresh_token"] != before["refresh_token"]


async def test_who_comes_from_another_site_and_has_nothing_to_renew(service: Service) -> None:
    """FOUND.md T25: is asked to sign in at once, and told what to do by no page in between."""
    answer = await visitor(service).goes("/account", **FROM_ELSEWHERE["another site"])
    assert [each.url.path for each in answer.history] == ["/account"]
    assert hidden(answer, "/sign-in") == {"next": "/account"}
    straight = await visitor(service).goes("/renew?next=/account", **FROM_ELSEWHERE["another site"])
    assert (straight.url.path, hidden(straight, "/sign-in")) == ("/sign-in", {"next": "/account"})


@ON_SQLITE
async def test_who_comes_from_another_site_and_whose_session_is_over(own: Service) -> None:
    """FOUND.md T25: hears it from the form, and is led back once signed in."""
    ada = await signed_up(own)
    own.clock.advance(days=31)
    shown = await ada.goes("/account", **FROM_ELSEWHERE["another site"])
    answer = await ada.sends_and_goes("/renew/continue", hidden(shown, "/renew/continue"))
    assert (answer.status_code, answer.url.path) == (200, "/sign-in")
    assert "Your session has ended." in text(answer)
    assert hidden(answer, "/sign-in") == {"next": "/account"}


async def test_a_link_elsewhere_makes_no_form_go_on(ada: Visitor, subtests: pytest.Subtests) -> None:
    """FOUND.md T25: a link names where the page leads to; its form arrives there by GET alone, and has done nothing."""
    for path in ("/sign-out", "/account/sessions/end-others", "/account"):
        with subtests.test(path):
            shown = await ada.browser.get(
                "/renew", params={"next": path}, headers=NAVIGATION | FROM_ELSEWHERE["another site"]
            )
            carried = hidden(shown, "/renew/continue")
            assert carried == {"next": path}
            # The cookies that a visitor would lose by signing out.
            renewed = await ada.sends("/renew/continue", carried | {"first_name": "Eve", "last_name": "Eve"})
            assert (renewed.status_code, renewed.headers["location"]) == (303, path)
            page = await ada.asks("/account")
            assert field(page, "first_name")["value"] == "Ada"


async def test_a_client_without_fetch_metadata_is_renewed_by_a_link(service: Service, ada: Visitor) -> None:
    """As before: it says nothing of where its user comes from, and SameSite lies beneath."""
    answer = await ada.browser.get("/renew?next=/account", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/account")
    assert "set-cookie" in answer.headers


async def test_head_renews_nothing(service: Service, ada: Visitor) -> None:
    """FOUND.md T25: from wherever it comes."""
    before = ada.browser.cookies["refresh_token"]
    for headers in ({}, NAVIGATION, NAVIGATION | FROM_ELSEWHERE["another site"]):
        for path in ("/renew", "/renew/continue"):
            answer = await ada.browser.head(path, headers=headers)
            assert (answer.status_code, "set-cookie" in answer.headers) == (405, False)
        service.clock.advance(seconds=40)
    assert ada.browser.cookies["refresh_token"] == before
    assert (await ada.asks("/renew")).status_code == 303


@ON_SQLITE
async def test_who_comes_to_sign_in_and_is_signed_in(own: Service) -> None:
    """Goes on to where they were going, however old the access token is; and is asked where the session is over."""
    ada = await signed_up(own)
    assert (await ada.goes("/sign-in?next=/account")).url.path == "/account"
    own.clock.advance(minutes=16)
    assert (await ada.goes("/sign-in?next=/account")).url.path == "/account"
    own.clock.advance(minutes=16)
    assert (await ada.goes("/sign-in")).url.path == "/dashboard"
    own.clock.advance(days=31)
    answer = await ada.goes("/sign-in?next=/account")
    assert [each.url.path for each in answer.history] == ["/sign-in", "/renew"]
    assert "Your session has ended." in text(answer)
    assert hidden(answer, "/sign-in") == {"next": "/account"}


AS_BROWSERS_SEND_IT = [
    ("filter[a]=1&b={c|d}^`", "/account?filter%5Ba%5D=1&b=%7Bc%7Cd%7D%5E%60"),
    ("a=%zz", "/dashboard"),
    ("a=" + "x" * 3000, "/dashboard"),
]


async def test_an_address_as_browsers_send_it(service: Service, ada: Visitor, subtests: pytest.Subtests) -> None:
    """What a browser leaves as it is comes along; where `next` can't lead, home is next, and nobody ends at a 400."""
    for query, onward in AS_BROWSERS_SEND_IT:
        with subtests.test(query[:20]):
            service.clock.advance(minutes=16)
            path = f"/account?{query}"
            asked = await ada.browser.get(
                httpx2.URL("http://localhost:8000", raw_path=path.encode()), headers=NAVIGATION
            )
            renewed = await ada.asks(asked.headers["location"])
            assert (renewed.status_code, renewed.headers["location"]) == (303, onward)
            nobody = visitor(service)
            url = httpx2.URL("http://localhost:8000", raw_path=path.encode())
            asked = await nobody.browser.get(url, headers=NAVIGATION)
            shown = await nobody.asks(asked.headers["location"])
            assert (shown.status_code, hidden(shown, "/sign-in").get("next", "/dashboard")) == (200, onward)


async def test_a_form_comes_through_whole(service: Service, ada: Visitor) -> None:
    """However long it took to fill in: the token is renewed on its way, by redirects that keep method and fields."""
    service.clock.advance(minutes=50)
    answer = await ada.sends_and_goes("/account", {"first_name": "Augusta", "last_name": "King"})
    assert [each.status_code for each in answer.history] == [307, 307, 303]
    assert (answer.status_code, answer.url.path) == (200, "/account")
    assert "Augusta King" in text(answer)
    assert "Your names are saved." in text(answer)


async def test_new_roles_are_fetched_on_the_way(service: Service, ada: Visitor) -> None:
    """The token that does not know of them is as good as expired, and nobody hears that they must refresh."""
    (user,) = await service.auth.users.list()
    await service.auth.users.grant_role(user.id, "admin", source=OPERATOR)
    answer = await ada.goes("/dashboard")
    assert [each.headers["location"] for each in answer.history] == ["/renew?next=%2Fdashboard", "/dashboard"]
    assert answer.status_code == 200


async def test_a_session_that_has_ended(own: Service, subtests: pytest.Subtests) -> None:
    """Leads to the sign-in page, which says so and knows the way; there is no going round in circles."""
    for ended in ("signed out elsewhere", "expired", "disabled", "deleted", "reused token"):
        with subtests.test(ended):
            ada = await signed_up(own, email=f"{ended.replace(' ', '-')}@example.com")
            user_id = UUID((await ada.browser.get("/api/auth/me")).json()["id"])
            match ended:
                case "signed out elsewhere":
                    await own.auth.sessions.revoke_sessions_of_user(
                        user_id, reason=RevocationReason.REVOKED, source=OPERATOR
                    )
                case "expired":
                    own.clock.advance(days=31)
                case "disabled":
                    await own.auth.users.disable(user_id)
                case "deleted":
                    await own.auth.users.delete(user_id)
                case _:
                    stolen = ada.browser.cookies["refresh_token"]
                    own.clock.advance(minutes=16)
                    await ada.goes("/account")
                    own.clock.advance(minutes=16)
                    await ada.goes("/account")
                    ada.browser.cookies.set("refresh_token", stolen, domain="localhost.local")
                    own.clock.advance(minutes=16)
            answer = await ada.goes("/account/sessions")
            assert (answer.status_code, answer.url.path) == (200, "/sign-in")
            assert "Your session has ended. Sign in to go on." in text(answer)
            assert hidden(answer, "/sign-in") == {"next": "/account/sessions"}
            again = await ada.goes("/sign-in")
            assert (again.status_code, again.url.path) == (200, "/sign-in")


NO_NAVIGATIONS = [
    {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image", "Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe", "Sec-Fetch-Site": "cross-site"},
]


async def test_only_a_navigation_renews(service: Service, ada: Visitor, subtests: pytest.Subtests) -> None:
    """Neither an image nor a frame of another site, nor a script; and the token is not used up."""
    for headers in NO_NAVIGATIONS:
        with subtests.test(str(headers)):
            answer = await ada.browser.get("/renew?next=/account", headers=headers)
            assert answer.status_code == 403
            assert "set-cookie" not in answer.headers
            service.clock.advance(minutes=16)
            assert (await ada.goes("/account")).url.path == "/account"


@ON_SQLITE
async def test_a_renewal_that_is_asked_for_too_often(database_url: str) -> None:
    """Is a page that says to wait, and the session goes on."""
    async with running_service(cheap_settings(database_url, limits=True, limit_refresh="2/1m")) as service:
        ada = await signed_up(service)
        for _ in range(2):
            assert (await ada.asks("/renew")).status_code == 303
        answer = await ada.asks("/renew")
        assert answer.status_code == 429
        assert title(answer).startswith("Too many tries")
        assert (await ada.sends("/renew/continue")).status_code == 429
        service.clock.advance(minutes=2)
        assert (await ada.asks("/renew")).status_code == 303


# --- where one may be sent on to --------------------------------------------------------------------------------------


ELSEWHERE = ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"]


async def test_nobody_is_sent_elsewhere(service: Service, subtests: pytest.Subtests) -> None:
    """CVE-2021-32618: the page that says so repeats nothing of it, and no form carries it on."""
    for path, bad in itertools.product(("/sign-in", "/sign-up", "/renew"), ELSEWHERE):
        with subtests.test(f"{path}: {bad}"):
            came = visitor(service)
            for answer in (
                await came.browser.get(path, params={"next": bad}, headers=NAVIGATION),
                await came.browser.get(path + "?next=/account&next=" + bad, headers=NAVIGATION),
                await came.sends("/renew/continue" if path == "/renew" else path, SIGN_UP | {"next": bad}),
            ):
                assert answer.status_code == 400
                assert "next_not_allowed" in text(answer)
                assert "evil" not in answer.text
                assert "location" not in answer.headers


@ON_SQLITE
async def test_a_listed_address_may_be_gone_to(database_url: str) -> None:
    """To the letter; and the policy of the page whose form leads there lets the browser follow."""
    listed = "https://app.example.com/welcome"
    async with running_service(cheap_settings(database_url, return_urls=listed)) as service:
        came = visitor(service)
        page = await came.browser.get("/sign-up", params={"next": listed}, headers=NAVIGATION)
        assert hidden(page, "/sign-up") == {"next": listed}
        assert "form-action 'self' https://app.example.com;" in page.headers["content-security-policy"]
        assert (await came.asks("/sign-up")).headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        answer = await came.sends("/sign-up", SIGN_UP | {"next": listed})
        assert (answer.status_code, answer.headers["location"]) == (303, listed)
        refused = await came.browser.get("/sign-in", params={"next": listed + "?x"}, headers=NAVIGATION)
        assert refused.status_code == 400
        # A form that is renewed on its way goes on whole, and so to nobody else's origin.
        assert (await came.sends(f"/renew?next={listed}", SIGN_UP)).status_code == 400
        # From another site, by a page whose form leads there as well.
        shown = await came.browser.get(
            "/renew", params={"next": listed}, headers=NAVIGATION | FROM_ELSEWHERE["another site"]
        )
        assert "form-action 'self' https://app.example.com;" in shown.headers["content-security-policy"]
        renewed = await came.sends("/renew/continue", hidden(shown, "/renew/continue"))
        assert (renewed.status_code, renewed.headers["location"]) == (303, listed)


# --- one's account ----------------------------------------------------------------------------------------------------


async def test_a_password_is_changed(own: Service) -> None:
    """The old one is worth nothing, the others' sessions are over, and one's own goes on."""
    ada = await signed_up(own)
    other = visitor(own)
    await other.sends("/sign-in", credentials())
    answer = await ada.sends_and_goes(
        "/account/password", {"current_password": PASSWORD, "new_password": "a new song, sung once"}
    )
    assert (answer.status_code, answer.url.path) == (200, "/account/password")
    assert "Your password is changed" in text(answer)
    assert (await other.goes("/account")).url.path == "/sign-in"
    assert (await visitor(own).sends("/sign-in", credentials())).status_code == 422
    assert (await visitor(own).sends("/sign-in", credentials(password="a new song, sung once"))).status_code == 303


REFUSED_CHANGES: list[tuple[dict[str, str], list[str]]] = [
    ({}, ["Enter your current password.", "Choose a new password."]),
    ({"current_password": PASSWORD}, ["Choose a new password."]),
    ({"current_password": PASSWORD, "new_password": "short"}, ["Use at least 8 characters."]),
    ({"current_password": "a wrong one", "new_password": "a new song"}, ["The password is not right."]),
    ({"current_password": "short", "new_password": "a new song"}, ["The password is not right."]),
]


async def test_a_password_that_can_not_be_changed(ada: Visitor, subtests: pytest.Subtests) -> None:
    """422, and neither password is on the page."""
    for filled, wrong in REFUSED_CHANGES:
        with subtests.test(str(filled)):
            answer = await ada.sends("/account/password", filled)
            assert answer.status_code == 422
            assert title(answer).startswith("Error: ")
            for sentence in wrong:
                assert sentence in text(answer)
            assert not any(secret in answer.text for secret in filled.values())
            assert field(answer, "username")["value"] == "ada@example.com"


async def test_sessions(service: Service, ada: Visitor) -> None:
    """This device first; each other one by its browser's name; ended ones are gone from there and turned away."""
    other = Visitor(service.browser(headers={"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Firefox/145.0"}))
    await other.sends("/sign-in", credentials())
    service.clock.advance(minutes=1)
    await other.asks("/renew")
    page = await ada.asks("/account/sessions")
    assert text(page).index("This device") < text(page).index("Firefox on Linux")
    forms = hidden_ids(page)
    assert len(forms) == 1
    assert (await other.asks("/account")).status_code == 200
    answer = await ada.sends_and_goes("/account/sessions/end", {"session_id": forms[0]})
    assert "That session has ended." in text(answer)
    assert hidden_ids(answer) == []
    assert "Your session has ended." in text(await other.goes("/account"))
    assert (await ada.asks("/account")).status_code == 200


def hidden_ids(page: httpx2.Response) -> list[str]:
    return re.findall(r'name="session_id" value="([^"]+)"', page.text)


async def test_another_users_session_does_not_end(service: Service, ada: Visitor) -> None:
    """GHSA class IDOR: an id is worth nothing without being signed in as its user."""
    bob = await signed_up(service, email="bob@example.com")
    own = (await bob.browser.get("/api/auth/sessions")).json()[0]["id"]
    await ada.sends("/account/sessions/end", {"session_id": own})
    assert (await bob.asks("/account")).status_code == 200
    for nonsense in ("", "x", own.upper()):
        assert (await ada.sends("/account/sessions/end", {"session_id": nonsense})).status_code == 404


async def test_ending_ones_own_session_is_signing_out(ada: Visitor) -> None:
    own = (await ada.browser.get("/api/auth/sessions")).json()[0]["id"]
    answer = await ada.sends_and_goes("/account/sessions/end", {"session_id": own})
    assert answer.url.path == "/signed-out"


# --- confirm that it is you -------------------------------------------------------------------------------------------


async def test_what_a_stolen_session_must_not_be_enough_for(service: Service, ada: Visitor) -> None:
    """The form waits on the page that asks for the password, and is done as soon as that is right."""
    other = visitor(service)
    await other.sends("/sign-in", credentials())
    service.clock.advance(minutes=14)
    for visit in (ada, other):
        await visit.asks("/renew")
    service.clock.advance(minutes=2)
    stopped = await ada.sends("/account/sessions/end-others", {"a": "b", "c": '"><script>'})
    assert stopped.status_code == 401
    assert title(stopped).startswith("Confirm that it is you")
    assert "insufficient_user_authentication" in stopped.headers["www-authenticate"]
    carried = hidden(stopped, "/account/sessions/end-others")
    assert carried == {"a": "b", "c": '"><script>'}
    assert "<script>" not in stopped.text.partition("<body")[2]
    assert (await other.asks("/account")).status_code == 200
    # As a browser does, with what the page has for password managers.
    beside = {"username": "ada@example.com"}
    wrong = await ada.sends("/account/sessions/end-others", carried | beside | {"confirm_password": "a wrong one"})
    assert wrong.status_code == 422
    assert "The password is not right." in text(wrong)
    assert hidden(wrong, "/account/sessions/end-others") == carried
    assert "a wrong one" not in wrong.text
    assert (await other.asks("/account")).status_code == 200
    empty = await ada.sends("/account/sessions/end-others", carried | beside)
    assert empty.status_code == 422
    assert "Enter your password." in text(empty)
    assert hidden(empty, "/account/sessions/end-others") == carried
    done = await ada.sends_and_goes("/account/sessions/end-others", carried | {"confirm_password": PASSWORD})
    assert (done.status_code, done.url.path) == (200, "/account/sessions")
    assert "All your other sessions have ended." in text(done)
    assert (await other.goes("/account")).url.path == "/sign-in"
    # The proof began a new generation, whose tokens the browser has: long after the grace nobody is taken for a thief.
    service.clock.advance(minutes=16)
    assert (await ada.goes("/account")).url.path == "/account"


@ON_SQLITE
async def test_a_proof_whose_form_then_breaks(own: Service, tmp_path: Path) -> None:
    """The tokens of the new generation reach the browser all the same: else it would be taken for a thief."""
    ada = await signed_up(own)
    await visitor(own).sends("/sign-in", credentials())
    own.clock.advance(minutes=14)
    await ada.asks("/renew")
    own.clock.advance(minutes=2)
    with contextlib.closing(sqlite3.connect(tmp_path / "latchstring.db")) as database:
        database.execute(
            "CREATE TRIGGER full BEFORE INSERT ON latchstring_revocations BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
        async with resilient(own, ada) as browser:
            came = Visitor(browser)
            answer = await came.sends("/account/sessions/end-others", {"confirm_password": PASSWORD})
            assert answer.status_code == 500
            database.execute("DROP TRIGGER full")
            own.clock.advance(minutes=16)
            assert (await came.goes("/account")).url.path == "/account"


@contextlib.asynccontextmanager
async def resilient(service: Service, came: Visitor) -> AsyncIterator[httpx2.AsyncClient]:
    """Gives the same visitor's browser, to which a bug is an answer."""
    transport = httpx2.ASGITransport(service.app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost:8000") as browser:
        browser.cookies = came.browser.cookies
        yield browser


async def test_confirming_before_there_is_a_form(service: Service, ada: Visitor) -> None:
    """The page by itself: for an application's own pages, which send a visitor there and back."""
    page = await ada.asks("/account/confirm?next=/account")
    assert field(page, "username")["value"] == "ada@example.com"
    for filled in ({}, {"confirm_password": "a wrong one"}, {"confirm_password": "short"}):
        assert (await ada.sends("/account/confirm", {"next": "/account"} | filled)).status_code == 422
    service.clock.advance(seconds=60)
    answer = await ada.sends("/account/confirm", {"next": "/account", "confirm_password": PASSWORD})
    assert (answer.status_code, answer.headers["location"]) == (303, "/account")
    assert (await ada.asks("/account")).status_code == 200


# --- who may send a form ----------------------------------------------------------------------------------------------


FORMS_FROM_ELSEWHERE = {
    "foreign": {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
    "the front end": {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"},
    "without origin": {"Sec-Fetch-Site": "cross-site"},
    "null": {"Sec-Fetch-Site": "cross-site", "Origin": "null"},
}


async def test_a_form_comes_from_our_own_pages(service: Service, ada: Visitor, subtests: pytest.Subtests) -> None:
    """Login CSRF and the like: no other site's form does anything, not even the front end's; nothing is used up."""
    for name, headers in FORMS_FROM_ELSEWHERE.items():
        with subtests.test(name):
            forms = {
                "/sign-up": SIGN_UP | {"email": "new@example.com"},
                "/sign-in": credentials(),
                "/sign-out": {},
                "/account": {"first_name": "Eve", "last_name": "Eve"},
                "/account/password": {"current_password": PASSWORD, "new_password": "a new song, sung once"},
                "/account/confirm": {"confirm_password": PASSWORD},
                "/account/sessions/end": {"session_id": "x"},
                "/account/sessions/end-others": {},
                "/renew": {},
                "/renew/continue": {},
                "/language": {"language": "en"},
            }
            for path, filled in forms.items():
                answer = await ada.sends(path, filled, **headers)
                assert (answer.status_code, "set-cookie" in answer.headers) == (403, False), path
                assert "The request came from another site." in text(answer)
            page = await ada.asks("/account")
            assert field(page, "first_name")["value"] == "Ada"
            assert len(await service.auth.users.list()) == 1


async def test_another_sites_script_reads_no_page(ada: Visitor, subtests: pytest.Subtests) -> None:
    """A cookie comes along whoever made the browser ask: what is no navigation is refused."""
    for path in GUARDED:
        with subtests.test(path):
            headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
            assert (await ada.browser.get(path, headers=headers)).status_code == 403


# --- what every page carries ------------------------------------------------------------------------------------------


async def test_every_page_is_under_the_policy(service: Service, ada: Visitor) -> None:
    """Pages, forms with errors, redirects and refusals: the same headers, once each, and nothing kept."""
    nobody = visitor(service)
    answers = [
        *[await nobody.asks(path) for path in (*OPEN, *GUARDED, "/", "/nothing/here?x", CHANGE_PASSWORD)],
        *[await ada.asks(path) for path in (*GUARDED, "/sign-in", "/renew")],
        await ada.asks("/renew", **FROM_ELSEWHERE["another site"]),
        await ada.sends("/renew/continue"),
        await nobody.sends("/sign-in", {}),
        await nobody.sends("/sign-in", {"next": "//"}),
        await nobody.browser.post("/sign-in", json={}),
        await nobody.browser.put("/sign-in", headers=NAVIGATION),
        await ada.sends("/sign-out"),
    ]
    for answer in answers:
        for name, value in HEADERS.items():
            assert answer.headers.get_list(name) == [value], (str(answer.url), name)
        assert answer.headers.get_list("cache-control") == ["no-store"]
        assert len(answer.headers.get_list("x-request-id")) == 1
    assert "script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'" in CONTENT_SECURITY_POLICY
    for part in ("default-src 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"):
        assert part in CONTENT_SECURITY_POLICY


async def test_no_page_has_a_script_or_style_of_its_own(service: Service, ada: Visitor) -> None:
    """What the policy would refuse is not there in the first place."""
    for came in (ada, visitor(service)):
        for path in (*OPEN, *GUARDED, "/nothing", "/renew"):
            page = await came.goes(path, **(FROM_ELSEWHERE["another site"] if path == "/renew" else {}))
            assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|https?://", page.text), path


async def test_a_page_weighs_little_and_its_files_are_kept_for_good(service: Service, ada: Visitor) -> None:
    """Under 30 KB in all, each file named after what is in it."""
    for path in GUARDED:
        page = await ada.asks(path)
        addresses = set(re.findall(r'(?:src|href)="(/assets/[^"]+)"', page.text))
        files = [await ada.browser.get(address) for address in addresses]
        assert {file.headers["content-type"].partition(";")[0] for file in files} == {
            "text/css",
            "text/javascript",
            "image/svg+xml",
        }
        assert len(page.content) + sum(len(file.content) for file in files) < 30_000
        (sheet,) = (file for file in files if file.headers["content-type"].startswith("text/css"))
        assert len(sheet.content) < 12_500
        assert "/*" not in sheet.text
        for file in files:
            assert file.status_code == 200
            assert file.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert file.headers["x-content-type-options"] == "nosniff"


async def test_files_of_another_version(service: Service) -> None:
    """While workers change over, an old page gets today's file, which it does not keep; what never was is 404."""
    browser = service.browser()
    old = await browser.get("/assets/latchstring.000000000000.css")
    assert (old.status_code, old.headers["cache-control"]) == (200, "no-store")
    for name in (
        "latchstring",
        "nothing.000000000000.css",
        "latchstring.000000000000.js",
        "..%2fsite.py",
        "theme.0.css",
    ):
        assert (await browser.get(f"/assets/{name}")).status_code == 404, name


def test_a_lost_answer_is_asked_for_again_within_the_grace() -> None:
    """Three tries of the quiet refresh are over before the old token would be a thief's: its own constants say so."""
    module = (STATIC / "session.js").read_text()
    (timeout,) = re.findall(r"AbortSignal\.timeout\((\d+) \* SECOND\)", module)
    (pause,) = re.findall(r"Math\.max\(2 \* pause, (\d+) \* SECOND\)", module)
    third_begins = int(timeout) + int(pause) + int(timeout) + 2 * int(pause)
    assert third_begins < Settings().refresh_grace_seconds


# --- what can't be shown ----------------------------------------------------------------------------------------------


async def test_a_browser_gets_pages_and_a_client_gets_problems(service: Service) -> None:
    """By what it says it can read, and by the address."""
    browser = service.browser()
    page = await browser.get("/nothing", headers={"Accept": "text/html,application/xhtml+xml"})
    assert (page.status_code, title(page)) == (404, "This page is not here – Latchstring")
    for path, accept in (("/nothing", "*/*"), ("/nothing", "application/json"), ("/api/nothing", "text/html")):
        answer = await browser.get(path, headers={"Accept": accept})
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    wrong = await browser.delete("/account", headers={"Accept": "text/html"})
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, POST")
    assert "method_not_allowed" in text(wrong)


async def test_well_known(service: Service, ada: Visitor) -> None:
    """Password managers find the page; what is not there is 404 and nothing else."""
    found = await ada.asks("/.well-known/change-password")
    assert (found.status_code, found.headers["location"]) == (303, "/account/password")
    for accept in ("text/html", "*/*"):
        unknown = "/.well-known/resource-that-should-not-exist-whose-status-code-should-not-be-200"
        assert (await ada.browser.get(unknown, headers={"Accept": accept})).status_code == 404


async def test_what_no_browser_sends(service: Service, subtests: pytest.Subtests) -> None:
    """Refused as a page, and not 500."""
    for kind, name in (("NUL", "a\x00b"), ("surrogate", "\ud800")):
        with subtests.test(kind):
            came = visitor(service)
            raw = (
                b"email="
                + b"".join(b"%%%02X" % byte for byte in name.encode("utf-8", "surrogatepass"))
                + b"&password=x"
            )
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = await came.browser.post("/sign-in", content=raw, headers=form)
            assert (answer.status_code, "validation_failed" in text(answer)) == (422, True)
            large = await came.browser.post("/sign-in", content=b"a=" + b"x" * 70_000, headers=form)
            assert (large.status_code, "body_too_large" in text(large)) == (413, True)


@ON_SQLITE
async def test_what_breaks_says_so_with_the_requests_id(own: Service) -> None:
    """A page for the visitor, and the error for the log."""
    ada = await signed_up(own)

    @own.auth.inside(UserRenamed)
    async def fail(_fact: UserRenamed, _connection: object) -> None:
        raise RuntimeError("as if the disk were full")

    names = {"first_name": "Augusta", "last_name": "King"}
    async with resilient(own, ada) as browser:
        answer = await Visitor(browser).sends("/account", names)
        assert (answer.status_code, title(answer)) == (500, "Something broke here – Latchstring")
        assert answer.headers["x-request-id"] in text(answer)
        assert "disk" not in answer.text
    with pytest.raises(SubscriberError):
        await ada.sends("/account", names)


async def test_while_revocations_are_not_known(own: Service) -> None:
    """503 with Retry-After, in a sentence for people."""
    came = await signed_up(own)
    own.clock.suspend(seconds=60)
    answer = await came.asks("/account")
    assert (answer.status_code, title(answer)) == (503, "Not just now – Latchstring")
    assert int(answer.headers["retry-after"]) >= 1


# --- settings ---------------------------------------------------------------------------------------------------------


@ON_SQLITE
async def test_pages_off(database_url: str) -> None:
    """`LATCHSTRING_PAGES=off`: the JSON routes, and nothing else."""
    async with running_service(cheap_settings(database_url, pages=False)) as service:
        browser = service.browser()
        for path in ("/", "/sign-in", "/dashboard", "/assets/page.js", "/.well-known/change-password"):
            answer = await browser.get(path, headers={"Accept": "text/html"})
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
        assert (await browser.post("/api/auth/register", json=registration())).status_code == 201


@ON_SQLITE
async def test_site_name(database_url: str) -> None:
    """`LATCHSTRING_SITE_NAME` stands in every title and in the header; hostile, it is text."""
    name = "<b>Acme & Sons</b>"
    async with running_service(cheap_settings(database_url, site_name=name)) as service:
        page = await visitor(service).asks("/sign-in")
        assert title(page) == f"Sign in – {name}"
        assert "<b>" not in page.text


@pytest.fixture
async def https(database_url: str) -> AsyncIterator[Service]:
    public = cheap_settings(database_url, public_url="https://auth.example.com")
    async with running_service(public) as service:
        yield service


@ON_SQLITE
async def test_on_https(https: Service) -> None:
    """`__Host-` cookies, and transport security on pages as on all answers."""
    ada = await signed_up(https)
    assert set(ada.browser.cookies) == {"__Host-access_token", "__Host-refresh_token"}
    page = await ada.asks("/dashboard")
    assert page.status_code == 200
    assert page.headers["strict-transport-security"] == "max-age=31536000"
    ada.browser.cookies.delete("__Host-access_token")
    assert (await ada.goes("/dashboard")).url.path == "/dashboard"
