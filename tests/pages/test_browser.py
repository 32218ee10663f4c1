"""The pages in a real browser, and nothing to complain of on the way.

Every journey is walked without a script over HTTP (`test_pages.py`): here, without one, only what a browser adds.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http import HTTPStatus
from pathlib import Path

import httpx2
import pytest
from playwright.async_api import Browser, Cookie, Locator, Page, Request, Response, Route, expect

from latchstring.foundation.web.pages.policy import CONTENT_SECURITY_POLICY
from tests.support.browser import (
    Person,
    Served,
    Watch,
    expect_path,
    fill,
    press,
    served_pages,
    sign_in,
    sign_up,
    visiting,
)
from tests.support.hang import HANG_SECONDS, until
from tests.support.service import PASSWORD

pytest_plugins = ["tests.support.shared_browser"]

ENDED = "Your session has ended."
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"
NEW_PASSWORD = "a new song, sung once"
WRONG_PASSWORD = "not the password"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Served]:
    with served_pages(tmp_path_factory.mktemp("pages"), sqlite_template) as served:
        yield served


def person(name: str) -> Person:
    """Returns somebody whom no other test knows."""
    return Person(f"{name}@example.com")


@pytest.fixture(scope="module")
async def signed_in(browser: Browser, server: Served) -> AsyncIterator[tuple[Page, Watch]]:
    """Somebody in Tokyo, for tests at whose end they are still signed in."""
    async with visiting(browser, server.url, timezone="Asia/Tokyo", locale="en-GB") as (page, watch):
        await sign_up(page, person("member"))
        yield page, watch


@pytest.fixture
async def member(signed_in: tuple[Page, Watch]) -> AsyncIterator[tuple[Page, Watch]]:
    """The same; a test answers for its own complaints."""
    yield signed_in
    _, watch = signed_in
    assert not watch.complaints, watch.complaints


def other_sessions(page: Page) -> Locator:
    """Returns the list's entries of other devices."""
    return page.get_by_role("main").get_by_role("listitem").filter(has_not_text="This device")


async def expect_ended(page: Page) -> None:
    """Waits until a visitor is asked to sign in again, and told why."""
    await expect_path(page, "/sign-in")
    await expect(page.get_by_text(ENDED)).to_be_visible()


# --- the journey ------------------------------------------------------------------------------------------------------


async def test_the_whole_journey(browser: Browser, server: Served) -> None:
    """Sign up, see and end sessions, change the password, sign out; whoever is out is told so, and gets back."""
    ada = person("journey")
    async with (
        visiting(browser, server.url) as (first, _),
        visiting(browser, server.url, user_agent=FIREFOX) as (second, _),
    ):
        await first.goto("/")
        await expect_path(first, "/sign-in")
        await first.get_by_role("link", name="Create an account").click()
        await expect_path(first, "/sign-up")
        await sign_up(first, ada)
        await expect(first.get_by_role("banner")).to_contain_text(ada.name)
        await second.goto("/dashboard")
        await expect_path(second, "/sign-in")
        await sign_in(second, ada)
        await expect_path(second, "/dashboard")

        # The list: this device first, and the other one ends.
        await first.get_by_role("link", name="Sessions").click()
        sessions = first.get_by_role("main").get_by_role("listitem")
        await expect(sessions).to_have_count(2)
        await expect(sessions.first).to_contain_text("This device")
        await expect(sessions.first.get_by_role("button")).to_have_count(0)
        await expect(other_sessions(first)).to_contain_text("Firefox on Linux")
        await other_sessions(first).get_by_role("button").click()
        await expect(first.get_by_role("status")).to_have_text("That session has ended.")
        await expect(sessions).to_have_count(1)

        # The other one is out at its next click, is told why, and gets to where it was going.
        await second.get_by_role("link", name="Account", exact=True).click()
        await expect_ended(second)
        await sign_in(second, ada)
        await expect_path(second, "/account")

        # A new password ends what others have, and the old one is worth nothing.
        await first.get_by_role("link", name="Password", exact=True).click()
        await fill(first, current_password=WRONG_PASSWORD, new_password=NEW_PASSWORD)
        await press(first, "Change password")
        await expect(first.get_by_role("alert")).to_contain_text("The password is not right.")
        await fill(first, current_password=PASSWORD, new_password=NEW_PASSWORD)
        await press(first, "Change password")
        await expect(first.get_by_role("status")).to_contain_text("Your password is changed")
        await second.get_by_role("link", name="Dashboard").click()
        await expect_ended(second)
        await sign_in(second, ada)
        await expect(second.get_by_role("alert")).to_contain_text("not right")
        await sign_in(second, ada, password=NEW_PASSWORD)
        await expect_path(second, "/dashboard")

        # Signed out, nothing comes back by the back button.
        await first.get_by_role("link", name="Account", exact=True).click()
        await expect_path(first, "/account")
        await press(first, "Sign out")
        await expect_path(first, "/signed-out")
        for _ in range(2):
            await first.go_back()
            await expect_path(first, "/sign-in")
            assert ada.email not in await first.content()


async def test_back_shows_nothing_of_a_page_that_was_kept(browser: Browser, server: Served) -> None:
    """A browser that keeps pages alive asks for them anew: after signing out, and where others ended the session."""
    ada = person("kept")
    async with visiting(browser, server.url) as (page, watch):
        await page.context.add_init_script(
            'addEventListener("pageshow", (event) => { if (event.persisted) sessionStorage.kept = location.pathname; })'
        )
        await sign_up(page, ada)
        await page.get_by_role("link", name="Account", exact=True).click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Account")
        with server.client() as client:
            client.post("/sign-in", data={"email": ada.email, "password": ada.password})
            assert client.post("/account/sessions/end-others").status_code == 303
        watch.documents.clear()
        await go_back(page)
        await expect_ended(page)
        assert await page.evaluate("sessionStorage.kept") == "/dashboard"
        assert watch.paths()[0] == "GET /dashboard"
        await sign_in(page, ada)
        await expect_path(page, "/dashboard")
        await page.get_by_role("link", name="Account", exact=True).click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Account")
        await press(page, "Sign out")
        await expect_path(page, "/signed-out")
        await go_back(page)
        await expect_path(page, "/sign-in")
        assert ada.email not in await page.content()


# --- a fresh proof ----------------------------------------------------------------------------------------------------


async def test_what_takes_a_fresh_proof(browser: Browser, server: Served) -> None:
    """Asks for the password on the way, says so where it is wrong, and then does at once what was asked."""
    ada = person("step-up")
    async with visiting(browser, server.url) as (page, _):
        with server.client() as other:
            await sign_up(page, ada)
            signed_in = other.post("/sign-in", data={"email": ada.email, "password": ada.password})
            assert signed_in.headers["location"] == "/dashboard"
            await server.age_proof(page.context)
            await page.get_by_role("link", name="Sessions").click()
            # The next token says how long ago the proof was; the form is on its way when it is fetched.
            await page.context.clear_cookies(name="access_token")
            await press(page, "End all other sessions")
            confirm = page.get_by_role("heading", name="Confirm that it is you")
            await expect(confirm).to_be_visible()
            await fill(page, confirm_password=WRONG_PASSWORD)
            await press(page, "Confirm")
            await expect(page.get_by_role("alert")).to_contain_text("The password is not right.")
            await expect(confirm).to_be_visible()
            await fill(page, confirm_password=PASSWORD)
            await press(page, "Confirm")
            await expect_path(page, "/account/sessions")
            await expect(page.get_by_role("status")).to_have_text("All your other sessions have ended.")
            await expect(other_sessions(page)).to_have_count(0)
            assert ENDED in other.get("/account", follow_redirects=True).text


# --- the quiet renewal ------------------------------------------------------------------------------------------------


async def test_two_tabs_share_each_renewal(browser: Browser, tmp_path: Path, sqlite_template: Path) -> None:
    """Tokens of five seconds: one tab renews for both, each time; both are as good as new after three lives."""
    ada = person("tabs")
    asked: list[str] = []
    given: list[str] = []
    renewals = asyncio.Semaphore(0)

    def see_request(request: Request) -> None:
        if request.url.endswith("/api/auth/refresh"):
            asked.append(request.method)

    async def see_answer(response: Response) -> None:
        if response.url.endswith("/api/auth/refresh"):
            cookies = await response.header_values("set-cookie")
            given.extend(cookie.partition(";")[0] for cookie in cookies if cookie.startswith("access_token="))
            renewals.release()

    with served_pages(tmp_path, sqlite_template, LATCHSTRING_ACCESS_TOKEN_EXPIRE_MINUTES="0.0834") as server:
        async with visiting(browser, server.url) as (one, watch):
            one.context.on("request", see_request)
            one.context.on("response", see_answer)
            await sign_up(one, ada)
            other = await one.context.new_page()
            await other.goto("/account")
            async with asyncio.timeout(HANG_SECONDS):
                for _ in range(3):
                    await renewals.acquire()
            # A tab that had asked for itself would have got the other one's token again.
            assert len(set(given)) == len(given) >= 3
            assert len(asked) - len(given) <= 1

            async def seconds_for_two_pages() -> float:
                await one.goto("/account")
                await other.goto("/account")
                renewed = len(given)
                await until(lambda: len(given) > renewed)
                began = time.monotonic()
                watch.documents.clear()
                await one.get_by_role("link", name="Sessions").click()
                await expect_path(one, "/account/sessions")
                await other.get_by_role("link", name="Password", exact=True).click()
                await expect_path(other, "/account/password")
                return time.monotonic() - began

            for _ in range(10):
                if await seconds_for_two_pages() < 2:
                    break
            else:
                pytest.skip("not judged: on this machine two pages take as long as such a token lives")
            assert watch.paths() == ["GET /account/sessions", "GET /account/password"]


@dataclass
class Ask:
    """A renewal that is on its way."""

    route: Route

    async def goes_on(self) -> int:
        """Sends it to the server, with the cookies that the browser has now; returns the answer's status."""
        async with self.route.request.frame.page.expect_response("**/api/auth/refresh") as answered:
            await self.route.continue_()
        return (await answered.value).status

    async def had(self, cookies: httpx2.Cookies) -> int:
        """Gives it the answer to those cookies, as if it had been on its way since the browser had them."""
        answer = httpx2.post(self.route.request.url, cookies=cookies)
        await self.route.fulfill(status=answer.status_code, headers=dict(answer.headers), body=answer.content)
        return answer.status_code


@dataclass
class Tabs:
    """Two of one browser."""

    url: str
    ada: Person
    left: Page
    other: Page
    asks: asyncio.Queue[Ask] = field(default_factory=asyncio.Queue)
    """The renewals that the first one asks for."""

    async def ask_after(self, *, minutes: float) -> Ask:
        """Turns the browser's clock on, and returns the renewal that is then asked for."""
        await self.left.clock.fast_forward(round(minutes * 60_000))
        async with asyncio.timeout(HANG_SECONDS):
            return await self.asks.get()

    async def sign_in_beside(self) -> None:
        """Signs in, in the other one, and waits until the first one has heard of it."""
        await self.left.evaluate(_LISTEN)
        await self.other.goto("/sign-in?why=ended")
        await sign_in(self.other, self.ada)
        await self.left.evaluate("window.heard")
        await self.other.goto("/nowhere")


_LISTEN = """() => {
  window.heard = new Promise((resolve) => addEventListener("storage", () => resolve(true), {once: true}));
}"""


@contextlib.asynccontextmanager
async def page_left_open(browser: Browser, server: Served, ada: Person) -> AsyncIterator[Tabs]:
    """Gives a page that renews and one that does not, of one browser, whose clock is turned.

    A refused renewal is what is looked at here: nobody listens for complaints.
    """
    context = await browser.new_context(base_url=server.url)
    left, other = await context.new_page(), await context.new_page()
    tabs = Tabs(server.url, ada, left, other)
    try:
        await sign_up(other, ada)
        await other.goto("/nowhere")
        await context.clock.install()
        await left.goto("/account")
        await left.route("**/api/auth/refresh", lambda route: tabs.asks.put_nowait(Ask(route)))
        yield tabs
    finally:
        await context.close()


async def cookies_of(page: Page) -> httpx2.Cookies:
    """Returns the browser's tokens."""
    return httpx2.Cookies({each["name"]: each["value"] for each in await page.context.cookies()})


async def a_late_refusal_does_not_end_what_another_tab_began(tabs: Tabs) -> None:
    """FOUND.md T3: a tab has signed out and in while this one was asking with the cookies of before: it goes on."""
    first = await tabs.ask_after(minutes=14.5)
    before = await cookies_of(tabs.left)
    await tabs.other.evaluate("fetch('/api/auth/logout', {method: 'POST'})")
    await tabs.sign_in_beside()
    assert await first.had(before) == 401
    # Nobody has loaded it anew, and it goes on with the cookies that the other tab got.
    assert await (await tabs.ask_after(minutes=14.5)).goes_on() == 200
    assert await tabs.left.evaluate("window.heard")


async def a_refusal_is_asked_about_once_more(tabs: Tabs) -> None:
    """FOUND.md T3: the new cookies came after it, and no word of them: with these the page goes on."""
    first = await tabs.ask_after(minutes=14.5)
    httpx2.post(f"{tabs.url}/api/auth/logout", cookies=await cookies_of(tabs.left))
    assert await first.goes_on() == 401
    second = await tabs.ask_after(minutes=0.1)
    await tabs.other.evaluate(_SIGN_IN, {"email": tabs.ada.email, "password": tabs.ada.password})
    assert await second.goes_on() == 200
    assert await (await tabs.ask_after(minutes=14.5)).goes_on() == 200


_SIGN_IN = """(given) => fetch("/api/auth/login", {
  method: "POST",
  headers: {"Content-Type": "application/json"},
  body: JSON.stringify(given),
})"""


async def a_second_refusal_is_the_end_until_somebody_signs_in(tabs: Tabs) -> None:
    """FOUND.md T3: a page whose session is over asks twice and no more; when another tab signs in, it goes on."""
    first = await tabs.ask_after(minutes=14.5)
    httpx2.post(f"{tabs.url}/api/auth/logout", cookies=await cookies_of(tabs.left))
    assert await first.goes_on() == 401
    assert await (await tabs.ask_after(minutes=0.1)).goes_on() == 401
    for _ in range(5):
        # Behind the page's own lock: it has heard the refusal before the clock goes on.
        await tabs.left.evaluate("navigator.locks.request('latchstring-renewal', () => fetch('/healthz'))")
        await tabs.left.clock.fast_forward(60 * 60_000)
    await tabs.left.evaluate("navigator.locks.request('latchstring-renewal', () => fetch('/healthz'))")
    assert tabs.asks.empty()
    await tabs.sign_in_beside()
    assert await (await tabs.ask_after(minutes=14.5)).goes_on() == 200


async def test_a_renewal_that_is_refused(browser: Browser, server: Served, subtests: pytest.Subtests) -> None:
    """One after the other on one page that is left open: at the end of each it goes on."""
    async with page_left_open(browser, server, person("left-open")) as tabs:
        for story in (
            a_late_refusal_does_not_end_what_another_tab_began,
            a_refusal_is_asked_about_once_more,
            a_second_refusal_is_the_end_until_somebody_signs_in,
        ):
            with subtests.test(story.__name__):
                await story(tabs)


async def test_an_expired_token_is_renewed_on_the_way(member: tuple[Page, Watch]) -> None:
    """By one redirect: on a click, and on an address typed in."""
    page, watch = member
    for come in ("click", "typed"):
        await page.goto("/dashboard")
        await page.context.clear_cookies(name="access_token")
        watch.documents.clear()
        if come == "typed":
            await page.goto("/account")
        else:
            await page.get_by_role("link", name="Account").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Account")
        assert watch.paths() == ["GET /account", "GET /renew?next=%2Faccount", "GET /account"], come


SITE, SIBLING = "http://elsewhere.example", "http://127.0.0.1:9"


async def go_back(page: Page) -> None:
    """Goes back by itself a moment later: where the page that is left ends at once, the call could not return."""
    await page.evaluate("setTimeout(() => history.back())")


async def follow_link_elsewhere(page: Page, watch: Watch, origin: str, server: Served) -> Cookie:
    """Follows a link on another site's page with an expired token; returns the refresh token that one had there."""

    async def fulfil(route: Route) -> None:
        link = f'<!doctype html><title>x</title><a href="{server.url}/account">There</a>'
        await route.fulfill(body=link, content_type="text/html")

    await page.context.route(f"{origin}/", fulfil)
    await page.goto(f"{origin}/")
    (before,) = [each for each in await page.context.cookies() if each["name"] == "refresh_token"]
    await page.context.clear_cookies(name="access_token")
    watch.documents.clear()
    await page.get_by_role("link", name="There").click()
    return before


BY_A_FORM = ["GET /account", "GET /renew?next=%2Faccount", "POST /renew/continue", "GET /account"]


@pytest.mark.parametrize("is_slow", [False, True], ids=["at once", "loaded first"])
async def test_a_link_elsewhere_leads_by_a_form_of_ours(
    member: tuple[Page, Watch], server: Served, *, is_slow: bool
) -> None:
    """FOUND.md T25: the token is renewed by a form of ours, which sends itself; one does not come back to it."""
    page, watch = member
    if is_slow:
        # As on a busy machine: the page has loaded before its form is sent, so that it stays in the history.
        await page.context.route("**/renew.*.js", after_the_load_event)
    for origin in (SITE, SIBLING):
        before = await follow_link_elsewhere(page, watch, origin, server)
        await expect(page.get_by_role("heading", level=1)).to_have_text("Account")
        assert before not in await page.context.cookies()
        assert watch.paths() == BY_A_FORM
        await go_back(page)
        await expect(page).to_have_url(f"{origin}/")


async def after_the_load_event(route: Route) -> None:
    """Lets a module run only once its page has loaded."""
    module = await route.fetch()
    text = (await module.text()).replace("\n", "\n  ")
    later = f'addEventListener("load", () => setTimeout(() => {{\n  {text}\n}}, 50));'
    await route.fulfill(response=module, body=later)


async def test_a_form_of_an_expired_token_arrives_whole(member: tuple[Page, Watch]) -> None:
    """However long it took to fill in."""
    page, _ = member
    await page.goto("/account")
    await expect_names_to_be_saved(page)


async def expect_names_to_be_saved(page: Page) -> None:
    """Fills in the account page's form, whose token then expires, and sends it."""
    await fill(page, first_name="Augusta Ada", last_name="King & Söhne")
    await page.context.clear_cookies(name="access_token")
    await press(page, "Save names")
    await expect(page.get_by_role("status")).to_have_text("Your names are saved.")
    await expect(page.get_by_role("banner")).to_contain_text("Augusta Ada King & Söhne")


async def test_without_a_script(browser: Browser, server: Served) -> None:
    """Times in UTC; a button where a form would send itself; no button to show a password; Back shows nothing."""
    ada = person("without-script")
    async with visiting(browser, server.url, javascript=False, timezone="Asia/Tokyo", locale="en-GB") as (page, watch):
        for path in ("/sign-in", "/sign-up"):
            await page.goto(path)
            await expect(page.get_by_role("button")).to_have_count(1)
        await sign_up(page, ada)
        for path in WITH_TIMES:
            await page.goto(path)
            await expect(page.locator("main time[datetime]").first).not_to_have_text("")
            for each in await page.locator("main time[datetime]").all():
                assert await each.inner_text() == in_utc(await moment(each))
        await press(page, "Sign out")
        await expect_path(page, "/signed-out")
        for _ in range(2):
            await page.go_back()
            await expect_path(page, "/sign-in")
            assert ada.email not in await page.content()
        await sign_in(page, ada)
        before = await follow_link_elsewhere(page, watch, SITE, server)
        await expect(page.get_by_role("heading", level=1)).to_have_text("One moment")
        assert before in await page.context.cookies()
        await press(page, "Continue")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Account")
        assert before not in await page.context.cookies()
        assert watch.paths() == BY_A_FORM
        await expect_names_to_be_saved(page)


# --- passwords --------------------------------------------------------------------------------------------------------


async def test_password_managers_find_what_they_look_for(browser: Browser, server: Served) -> None:
    """Each field says which it is; one password at sign-up; the change names its account, and has a known address."""
    ada = person("manager")

    async def filled_by(page: Page) -> list[tuple[str, str]]:
        found = await page.locator("main form input[autocomplete]").evaluate_all(
            "inputs => inputs.map(each => [each.autocomplete, each.type])"
        )
        return [(autocomplete, kind) for autocomplete, kind in found]

    async with visiting(browser, server.url) as (page, _):
        await page.goto("/sign-in")
        assert await filled_by(page) == [("username", "email"), ("current-password", "password")]
        await page.goto("/sign-up")
        assert await filled_by(page) == [
            ("given-name", "text"),
            ("family-name", "text"),
            ("username", "email"),
            ("new-password", "password"),
        ]
        await sign_up(page, ada)
        await page.goto("/.well-known/change-password")
        await expect_path(page, "/account/password")
        assert await filled_by(page) == [
            ("username", "email"),
            ("current-password", "password"),
            ("new-password", "password"),
        ]
        account = page.locator("[autocomplete=username]")
        await expect(account).to_have_value(ada.email)
        await expect(account).to_be_hidden()
        await page.goto("/account/confirm")
        assert await filled_by(page) == [("username", "email"), ("current-password", "password")]
        await expect(page.locator("[autocomplete=username]")).to_have_value(ada.email)


async def test_a_password_can_be_pasted_and_shown(browser: Browser, server: Served) -> None:
    """Pasted whole, shown and hidden again by a button that says which, and hidden when it is sent."""
    pasted = "pasted from a manager " * 5
    async with visiting(browser, server.url) as (page, _):
        await page.goto("/sign-in")
        await fill(page, email=pasted)
        await page.locator("[name=email]").press("ControlOrMeta+A")
        await page.keyboard.press("ControlOrMeta+C")
        field = page.locator("[name=password]")
        await field.press("ControlOrMeta+V")
        await expect(field).to_have_value(pasted)
        await expect(field).to_have_attribute("type", "password")
        await page.get_by_role("button", name=re.compile("^Show")).click()
        await expect(field).to_have_attribute("type", "text")
        await expect(field).to_have_value(pasted)
        await page.get_by_role("button", name=re.compile("^Hide")).click()
        await expect(field).to_have_attribute("type", "password")
        await page.get_by_role("button", name=re.compile("^Show")).click()
        types = await field.evaluate(
            """field => {
              let type;
              field.form.addEventListener("submit", event => { type = field.type; event.preventDefault(); });
              field.form.requestSubmit();
              field.form.querySelector("button:not([type])").click();
              return [type, field.form.noValidate];
            }"""
        )
        assert types == ["password", True]


# --- times ------------------------------------------------------------------------------------------------------------


WITH_TIMES = ["/dashboard", "/account", "/account/sessions"]


async def moment(time_element: Locator) -> datetime:
    """Returns what a `<time>` says to programs."""
    return datetime.fromisoformat(await time_element.get_attribute("datetime") or "")


def in_utc(when: datetime) -> str:
    """Returns a time as the server writes it."""
    return f"{when:%Y-%m-%d %H:%M} UTC"


async def test_times_are_the_visitors(member: tuple[Page, Watch]) -> None:
    """In the visitor's zone, which a script can find out, and never without saying what it is in UTC."""
    page, _ = member
    for path in WITH_TIMES:
        await page.goto(path)
        shown = page.locator("main time[datetime]").first
        await expect(shown).not_to_have_text("")
        await expect(shown).not_to_contain_text("UTC")
        for each in await page.locator("main time[datetime]").all():
            when = await moment(each)
            assert await each.get_attribute("title") == in_utc(when)
            tokyo = when.astimezone(timezone(timedelta(hours=9)))
            text = await each.inner_text()
            assert f"{tokyo:%b} {tokyo.day}, {tokyo.year}" in text
            assert f"{tokyo.hour % 12 or 12}:{tokyo:%M}" in text


# --- frames -----------------------------------------------------------------------------------------------------------


async def test_no_page_is_shown_in_a_frame(browser: Browser, server: Served) -> None:
    """Neither of another site nor of our own: nobody's click is caught by a page of ours that they don't see."""
    ada = person("frame")
    context = await browser.new_context(base_url=server.url)
    page = await context.new_page()
    await sign_up(page, ada)
    failures: list[str | None] = []
    page.on("requestfailed", lambda request: failures.append(request.failure))

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = "".join(f'<iframe src="{server.url}{path}"></iframe>' for path in FRAMED)
        head = ["HTTP/1.1 200 OK", "Content-Type: text/html", f"Content-Length: {len(frames)}", "Connection: close"]
        writer.write("\r\n".join([*head, "", frames]).encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as elsewhere:
        await page.goto(f"http://localhost:{elsewhere.sockets[0].getsockname()[1]}/")
        await expect(page.locator("iframe")).to_have_count(len(FRAMED))
        assert failures.count("net::ERR_BLOCKED_BY_RESPONSE") == len(FRAMED)
        assert [frame.url for frame in page.frames[1:]] == ["chrome-error://chromewebdata/"] * len(FRAMED)
    await context.close()


FRAMED = ["/sign-in", "/account", "/signed-out", "/nowhere", "/renew"]


# --- hostile strings --------------------------------------------------------------------------------------------------

LONG_WORD = "Donaudampfschiff" * 6 + "fahr"
HOSTILE = {
    "script": "<script>alert(1)</script>",
    "image": '"><img src=x onerror=alert(1)>',
    "title": "</title><script>alert(1)</script>",
    "attribute": "' autofocus onfocus=alert(1) x='",
    "entity": "&lt;script&gt;alert(1)&lt;/script&gt;",
    "template": "{{7*7}}{% raw %}{#",
    "expression": "${7*7}#{7*7}<%= 7*7 %>",
    "format": "%(name)s %s %(num)d {0}",
    "direction": "\u202eevil\u202d \u2066x",
    "address": "javascript:alert(1)//",
    "long": LONG_WORD,
    "emoji": "👩‍👩‍👧‍👦🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "quotes": 'O\'Brien "the" `Ada` \\',
}


async def test_a_hostile_name_is_a_name(browser: Browser, server: Served) -> None:
    """A name, a browser and a query are shown to the letter, run no script, and make no phone scroll sideways."""
    ada = Person("hostile@example.com", first_name=HOSTILE["script"], last_name=HOSTILE["image"])
    async with visiting(browser, server.url, viewport={"width": 320, "height": 640}) as (page, _):
        await sign_up(page, ada)
        await page.goto("/account")
        for first_name, last_name in (
            (HOSTILE["title"] + HOSTILE["attribute"], HOSTILE["template"] + HOSTILE["direction"] + HOSTILE["emoji"]),
            (HOSTILE["script"] + HOSTILE["image"], HOSTILE["long"]),
        ):
            await fill(page, first_name=first_name, last_name=last_name)
            await press(page, "Save names")
            await expect(page.get_by_role("banner").locator("bdi")).to_have_text(f"{first_name} {last_name}")
            await expect(page.locator("[name=first_name]")).to_have_value(first_name)
            await expect(page.locator("[name=last_name]")).to_have_value(last_name)
            assert await is_as_wide_as_the_window(page), first_name
            assert await page.title() == "Account – Latchstring"
        # A script and the longest word at once, on every page that names who is signed in.
        for path in ("/dashboard", "/account/password", "/account/sessions", "/account/confirm"):
            await page.goto(path)
            await expect(page.get_by_role("heading", level=1)).to_be_visible()
            assert await is_as_wide_as_the_window(page), path
        agents = [agent for agent in HOSTILE.values() if agent.isascii()]
        for agent in agents:
            with server.client(**{"User-Agent": agent}) as client:
                answer = client.post("/sign-in", data={"email": ada.email, "password": ada.password})
                assert answer.status_code == 303
        await page.goto("/account/sessions")
        for agent in agents:
            await expect(other_sessions(page).get_by_text(agent.strip(), exact=True)).to_be_visible()
        assert await is_as_wide_as_the_window(page)
        # A destination that is none is refused before anything else of an address is looked at.
        addresses = [f"/sign-in?next={percent(HOSTILE[kind].encode())}" for kind in ("script", "image", "address")]
        query = str(httpx2.QueryParams(why=HOSTILE["script"], done=HOSTILE["image"], x=HOSTILE["address"]))
        paths = ("/sign-in", "/account", "/account/sessions", "/account/confirm", "/signed-out", "/nowhere")
        for address in (*addresses, *(f"{path}?{query}" for path in paths)):
            await page.goto(address)
            await expect(page.get_by_role("heading", level=1)).to_be_visible()


async def is_as_wide_as_the_window(page: Page) -> bool:
    """Tells whether nothing reaches over the side."""
    fits: bool = await page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    return fits


PAGES = [
    "/",
    "/sign-in",
    "/sign-up",
    "/signed-out",
    "/dashboard",
    "/account",
    "/account/password",
    "/account/sessions",
    "/account/confirm",
    "/renew",
    "/.well-known/change-password",
    "/nowhere",
]
BYTES = {"line": "x\r\nSet-Cookie: x=1\r\n\r\n<b>", "null": "<b>\x00", "bytes": "<b>\udcff"}


def test_a_hostile_query_on_every_page(server: Served, subtests: pytest.Subtests) -> None:
    """In every parameter: never an error of the server, never unescaped, no header of its own, no way to elsewhere.

    All of them at once on every page, and each by itself on a page of one who is signed in, on a
    form, and on a way that leads back.
    """
    strings = HOSTILE | BYTES
    with server.client() as ada, server.client() as stranger:
        names = {"first_name": "Ada", "last_name": "Lovelace"}
        filled = names | {"email": "hostile-queries@example.com", "password": PASSWORD}
        assert ada.post("/sign-up", data=filled).status_code == 303
        each_by_itself = [(ada, "/account"), (stranger, "/sign-in"), (stranger, "/account")]
        everything = ["".join(HOSTILE.values()), "".join(strings.values())]
        asked = [(client, path, raw) for client in (ada, stranger) for path in PAGES for raw in everything]
        asked += [(client, path, raw) for client, path in each_by_itself for raw in strings.values()]
        for client, path, raw in asked:
            with subtests.test(f"{path} {raw!r:.40}"):
                value = percent(raw.encode(errors="surrogateescape"))
                # A destination that is none is refused before anything else is looked at.
                for query in (f"next={value}", "&".join(f"{name}={value}" for name in ("why", "done", "x"))):
                    expect_no_harm(client.get(f"{path}?{query}"), raw)


def expect_no_harm(answer: httpx2.Response, raw: str) -> None:
    """Looks at an answer for what a hostile string could have done to it."""
    assert answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "x" not in answer.cookies
    for each in (raw, *(part for part in (HOSTILE | BYTES).values() if part in raw)):
        if set(each) & set("<\"'&"):
            assert each.encode(errors="replace") not in answer.content
    if answer.is_redirect:
        assert re.fullmatch(r"/(?!/)[!-~]*", answer.headers["location"])
    else:
        assert answer.headers["content-type"] == "text/html; charset=utf-8"


def percent(value: bytes) -> str:
    """Returns a value as it stands in a query."""
    return "".join(f"%{byte:02X}" for byte in value)


def test_a_hostile_field_on_every_form(server: Served, subtests: pytest.Subtests) -> None:
    """In each name at sign-up and in each field of a form that is wrong: kept to the letter, and escaped."""
    for kind, raw in HOSTILE.items():
        with subtests.test(kind), server.client() as client:
            names = {"first_name": raw, "last_name": raw}
            wrong = client.post("/sign-up", data=names | {"email": raw})
            assert wrong.status_code == 422
            assert client.post("/sign-in", data={"email": raw, "password": raw}).status_code == 422
            email = f"hostile-{kind}@example.com"
            assert client.post("/sign-up", data=names | {"email": email, "password": PASSWORD}).status_code == 303
            assert client.get("/api/auth/me").json()["first_name"] == raw
            answers = [wrong, *(client.get(path) for path in ("/dashboard", "/account", "/account/sessions"))]
            answers.append(client.post("/account", data={"first_name": raw, "last_name": ""}))
            answers.append(client.post("/account/password", data={"current_password": raw, "new_password": raw}))
            answers.append(client.post("/account/sessions/end", data={"session_id": raw}))
            answers.append(client.post("/account/confirm", data={"confirm_password": PASSWORD, "next": raw}))
            for answer in answers:
                assert answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR
                assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
                if set(raw) & set("<\"'&"):
                    assert raw not in answer.text
