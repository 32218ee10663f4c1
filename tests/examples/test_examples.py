"""Each example runs by its README's words, and does what it says; pages do so in a browser."""

import asyncio
import contextlib
import re
import sys
from collections.abc import Iterator
from http import HTTPStatus
from importlib import resources
from pathlib import Path

import httpx2
import pytest
import websockets
from playwright.async_api import Browser, Page, Request, Response, Route, expect

from tests.support.browser import visiting
from tests.support.hang import HANG_SECONDS
from tests.support.postgres import Postgres
from tests.support.served import EXAMPLES, served
from tests.support.service import PASSWORD, SECRET, credentials, registration

pytest_plugins = ["tests.support.shared_browser"]

VARIABLES = {"APP_SECRET": SECRET}


@contextlib.contextmanager
def example(name: str, cwd: Path, **variables: str) -> Iterator[httpx2.Client]:
    """Serves one, and gives a browser of it."""
    with (
        served(EXAMPLES / name, "main:app", cwd=cwd, variables=VARIABLES | variables) as address,
        httpx2.Client(base_url=address, timeout=HANG_SECONDS) as browser,
    ):
        yield browser


def test_minimal(tmp_path: Path) -> None:
    """Ten lines: no command before, no other file."""
    source = (EXAMPLES / "minimal" / "main.py").read_text().partition('"""\n')[2]
    assert len([line for line in source.splitlines() if line]) <= 10
    with example("minimal", tmp_path) as browser:
        assert browser.get("/me").status_code == 401
        assert browser.post("/auth/register", json=registration()).status_code == 201
        assert browser.get("/me").json() == "ada@example.com"


async def test_bearer_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs in at `/token`; of twenty requests with an expired token one refreshes, and all get their answer."""
    monkeypatch.syspath_prepend(str(EXAMPLES / "bearer_client"))
    sys.modules.pop("client", None)
    from client import Bearer  # type: ignore[import-not-found]  # noqa: PLC0415 -- the example's own module

    with example("minimal", tmp_path) as browser:
        browser.post("/auth/register", json=registration())
        bearer = await Bearer.sign_in(f"{browser.base_url}/auth/token", "ada@example.com", PASSWORD)
        seen: list[str] = []

        async def see(request: httpx2.Request) -> None:
            seen.append(request.url.path)

        hooks = {"request": [see]}
        async with httpx2.AsyncClient(base_url=browser.base_url, auth=bearer, event_hooks=hooks) as client:
            assert (await client.get("/me")).json() == "ada@example.com"
            first = bearer._refresh_token
            # A token that is not valid any more, whatever the reason, is answered as an expired one is.
            bearer._access_token = "a.b.c"
            answers = await asyncio.gather(*(client.get("/me") for _ in range(20)))
            assert [answer.json() for answer in answers] == ["ada@example.com"] * 20
            assert bearer._refresh_token != first
            await bearer.confirm(f"{browser.base_url}/auth/confirm", PASSWORD)
            stolen = bearer._refresh_token
            change_url = f"{browser.base_url}/auth/password/change"
            await bearer.change_password(change_url, current=PASSWORD, new="another horse battery")
            form = {"grant_type": "refresh_token", "refresh_token": stolen}
            assert (await client.post("/auth/token", data=form, auth=httpx2.Auth())).status_code == 400
            bearer._access_token = "a.b.c"
            assert (await client.get("/me")).json() == "ada@example.com"
            browser.post("/auth/logout", headers={"Authorization": f"Bearer {bearer._access_token}"})
            assert (await client.get("/me")).status_code == 401
    sys.modules.pop("client", None)


async def test_websocket(tmp_path: Path) -> None:
    """Everybody in the room hears everybody; who signs out is told, and leaves it."""
    with example("websocket", tmp_path) as browser:
        address = str(browser.base_url).replace("http://", "ws://").rstrip("/") + "/room"
        tokens = []
        for name in ("ada", "bob"):
            answer = browser.post("/auth/register", json=registration(f"{name}@example.com", first_name=name))
            tokens.append(answer.cookies["access_token"])
            browser.cookies.clear()
        with pytest.raises(websockets.InvalidStatus):
            await websockets.connect(address, proxy=None)
        sockets = [
            await websockets.connect(address, proxy=None, additional_headers={"Cookie": f"access_token={token}"})
            for token in tokens
        ]
        async with asyncio.timeout(HANG_SECONDS):
            for sender, name in zip(sockets, ("ada", "bob"), strict=True):
                await sender.send("hello")
                assert [await socket.recv() for socket in sockets] == [f"{name}: hello"] * 2
            browser.post("/auth/logout", headers={"Authorization": f"Bearer {tokens[0]}"})
            with pytest.raises(websockets.ConnectionClosed):
                await sockets[0].recv()
            assert (sockets[0].close_code, sockets[0].close_reason) == (4401, "session_ended")
            await sockets[1].send("alone")
            assert await sockets[1].recv() == "bob: alone"
        await sockets[1].close()


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_profile_table(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A profile from the first moment, changed and read with one join, and gone with its user."""
    postgres: Postgres | None = request.getfixturevalue("postgres") if backend == "postgresql" else None
    url = postgres.create_database() if postgres else f"sqlite+aiosqlite:///{tmp_path}/app.db"
    with example("profile_table", tmp_path, DATABASE_URL=url) as browser:
        assert browser.get("/profile").status_code == 401
        browser.post("/auth/register", json=registration())
        assert browser.get("/profile").json() == {"email": "ada@example.com", "city": "somewhere"}
        assert browser.put("/profile/city", params={"city": "London"}).json()["city"] == "London"
    if postgres:
        postgres.drop_database(url)


# --- in a browser ----------------------------------------------------------------------------------------------------


async def test_spa(browser: Browser, tmp_path: Path) -> None:
    """Two tabs: signing in and out reaches both; on 401 one of them refreshes, and both go on."""
    with example("spa", tmp_path) as client:
        context = await browser.new_context(base_url=str(client.base_url))
        asked: list[str] = []

        def see(request: Request) -> None:
            asked.append(f"{request.method} {request.url.rpartition('/')[2]}")

        context.on("request", see)
        one, other = await context.new_page(), await context.new_page()
        for tab in (one, other):
            await tab.goto("/")
            await expect(tab.get_by_role("heading")).to_have_text("Nobody is signed in.")
        await sign_up(one)
        for tab in (one, other):
            await expect(tab.get_by_role("heading")).to_have_text("Hello, ada!")
        # The access token's time is over: the browser has dropped its cookie. Both tabs have heard so, when one of them
        # is answered that it has the next one.
        await context.clear_cookies(name="access_token")
        asked.clear()
        both_know = asyncio.Event()

        async def see_answer(response: Response) -> None:
            if response.status == HTTPStatus.UNAUTHORIZED:
                refused.append(response.url)
            if len(refused) == 2:
                both_know.set()

        async def wait_for_both(route: Route) -> None:
            await both_know.wait()
            await route.continue_()

        refused: list[str] = []
        context.on("response", see_answer)
        await context.route("**/auth/refresh", wait_for_both)
        # It is gone from the page until it is there again, so that nobody sees the greeting of before.
        await asyncio.gather(*(tab.evaluate(_BLANK) for tab in (one, other)))
        await asyncio.gather(*(tab.evaluate("document.getElementById('greet').click()") for tab in (one, other)))
        for tab in (one, other):
            await expect(tab.get_by_role("heading")).to_have_text("Hello, ada!")
        assert asked.count("POST refresh") == 1
        await one.get_by_text("Sign out").click()
        for tab in (one, other):
            await expect(tab.get_by_role("heading")).to_have_text("Nobody is signed in.")
        await one.get_by_label("E-mail").fill("ada@example.com")
        await one.get_by_label("Password").fill("not the password")
        await one.get_by_role("button", name="Sign in").click()
        await expect(one.get_by_role("alert")).to_have_text("Incorrect username or password")
        await context.close()


async def test_spa_takes_no_first_refusal_for_the_end(
    browser: Browser, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """FOUND.md T3: another tab has new cookies when the refusal of the old ones comes, or gets them just after it."""
    with example("spa", tmp_path) as client:
        context = await browser.new_context(base_url=str(client.base_url))
        one, other = await context.new_page(), await context.new_page()
        await one.goto("/")
        await sign_up(one)
        await expect(one.get_by_role("heading")).to_have_text("Hello, ada!")
        await other.goto("/")
        await expect(other.get_by_role("heading")).to_have_text("Hello, ada!")
        for word_comes in (True, False):
            with subtests.test("late" if word_comes else "before"):
                await refuse_once(client, one, other, word_comes=word_comes)
        await context.close()


async def refuse_once(client: httpx2.Client, one: Page, other: Page, *, word_comes: bool) -> None:
    """Ends a session, and lets `other` hear so when `one` has signed in again."""
    old = {each["name"]: each["value"] for each in await one.context.cookies()}
    httpx2.post(f"{client.base_url}/auth/logout", cookies=old)
    held: asyncio.Queue[Route] = asyncio.Queue()
    await other.route("**/auth/refresh", held.put_nowait)
    hears = asyncio.create_task(other.evaluate(_ASK))
    async with asyncio.timeout(HANG_SECONDS):
        first = await held.get()
        if word_comes:
            await one.evaluate(_SIGN_IN_BY_MODULE, credentials())
        refused = httpx2.post(first.request.url, cookies=old)
        assert refused.status_code == HTTPStatus.UNAUTHORIZED
        await first.fulfill(status=refused.status_code, headers=dict(refused.headers), body=refused.content)
        if not word_comes:
            second = await held.get()
            await one.evaluate(_SIGN_IN_BY_FETCH, credentials())
            await second.continue_()
        assert await hears == HTTPStatus.OK
    assert await other.evaluate("localStorage.getItem('latchstring.signed-in')") == "yes"


_ASK = "async () => (await (await import('/session.js')).ask('/api/greeting')).status"
_SIGN_IN_BY_MODULE = "async (given) => (await import('/session.js')).signIn(given)"
_SIGN_IN_BY_FETCH = """(given) => fetch("/auth/login", {
  method: "POST",
  headers: {"Content-Type": "application/json"},
  body: JSON.stringify(given),
})"""


async def test_pages(browser: Browser, tmp_path: Path) -> None:
    """From the shop to its sign-in page and back, under the shop's own header, footer and colours."""
    with example("pages", tmp_path) as client:
        async with visiting(browser, str(client.base_url)) as (page, _):
            await page.goto("/")
            await page.get_by_role("link", name="Sign in").click()
            await expect(page.get_by_role("banner")).to_contain_text("Things the sea gave back")
            await expect(page.get_by_role("contentinfo")).to_contain_text("Harbour Street 9")
            await expect(page.get_by_role("button", name="Sign in")).to_have_css("background-color", "rgb(11, 110, 79)")
            await page.get_by_role("link", name="Create an account").click()
            await page.get_by_label("First name").fill("Ada")
            await page.get_by_label("Last name").fill("Lovelace")
            await page.get_by_label("E-mail address").fill("ada@example.com")
            await page.get_by_label("Password", exact=True).fill(PASSWORD)
            await page.get_by_role("button", name="Create account").click()
            await expect(page.get_by_role("heading")).to_have_text("Orders of Ada")
            await page.get_by_role("link", name="Your account").click()
            await page.get_by_role("navigation").get_by_role("link", name="Orders").click()
            await expect(page.get_by_role("heading")).to_have_text("Orders of Ada")


_BLANK = "document.getElementById('greeting').textContent = ''"


async def sign_up(page: Page) -> None:
    await page.get_by_label("E-mail").fill("ada@example.com")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign up").click()


async def test_the_docs_pages_authorize_button(browser: Browser, tmp_path: Path) -> None:
    """Address and password in FastAPI's own `/docs`, and a guarded route answers: by the token that `/token` gave."""
    with example("minimal", tmp_path) as client:
        client.post("/auth/register", json=registration())
        context = await browser.new_context(base_url=str(client.base_url))
        await context.route(re.compile(r"^https://"), from_the_package)
        page = await context.new_page()
        await page.goto("/docs")
        await page.get_by_role("button", name="Authorize").first.click()
        form = page.locator(".auth-container", has_text="signIn")
        await form.locator("#oauth_username").fill("ada@example.com")
        await form.locator("#oauth_password").fill(credentials()["password"])
        await form.locator("button", has_text="Authorize").click()
        await expect(form.locator("button", has_text="Logout")).to_be_visible()
        await page.locator(".btn-done", has_text="Close").first.click()
        operation = page.locator("#operations-default-me_me_get")
        await operation.locator(".opblock-summary-control").click()
        await operation.get_by_role("button", name="Try it out").click()
        await operation.get_by_role("button", name="Execute").click()
        await expect(operation.locator(".live-responses-table .highlight-code")).to_contain_text("ada@example.com")
        await context.close()


async def from_the_package(route: Route) -> None:
    """Answers what FastAPI's page takes from elsewhere out of a package that brings it."""
    files = resources.files("fastapi_swagger") / "resources"
    name = route.request.url.rpartition("/")[2]
    with resources.as_file(files / name) as path:
        if path.exists():
            await route.fulfill(path=path)
        else:
            await route.abort()
