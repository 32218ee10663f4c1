"""Real Chromium: how it is found and started, what it must never complain of, and the steps that a visitor takes."""

import contextlib
import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import httpx2
import jwt
import pytest
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Page,
    Request,
    Response,
    ViewportSize,
    WebError,
    async_playwright,
    expect,
)

from drills.stolen_key import steal
from latchstring.core.tokens.rules import Kind
from tests.support.hang import HANG_SECONDS
from tests.support.pages import NAVIGATION
from tests.support.process import CHEAP_HASH, NO_LIMITS, ServerProcess
from tests.support.service import PASSWORD, SECRET

# What Playwright leaves out as well: of two lists the browser heeds the last.
_LEFT_OUT = [
    "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose",
    "HttpsUpgrades",
    "HttpsFirstBalancedModeAutoEnable",
    "LensOverlay",
    "MediaRouter",
    "PaintHolding",
    "ThirdPartyStoragePartitioning",
    "AvoidCorsURLLoaderRestartOnRedirect",
    "TcpPortRandomizationWin",
    "OptimizationHints",
    "NetworkTimeServiceQuerying",
    "AimEnabled",
    "PreconnectToSearch",
    # Two pages of the browser's own, loaded below the address bar of every window: half of a visitor's processor time.
    "WebUIOmniboxPopup",
    "WebUIOmniboxAimPopup",
]
ARGUMENTS = [
    "--no-sandbox",
    f"--disable-features={','.join(_LEFT_OUT)}",
    # Nothing that looks for anything outside of this machine.
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
_TELL_OF_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) => {
  console.error(`securitypolicyviolation: ${event.effectiveDirective} ${event.blockedURI}`);
});
"""


def found_chromium() -> str | None:
    """Returns the program, where there is one or it was said that there is."""
    named = os.environ.get("LATCHSTRING_TEST_BROWSER")
    return named or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def chromium() -> str:
    """Returns the program; where there is none, these tests skip, unless it was said that there is one."""
    found = found_chromium()
    if found is None:
        pytest.skip("there is no Chromium on this machine")
    return found


@contextlib.asynccontextmanager
async def running_browser(*, keeps_pages: bool = False) -> AsyncIterator[Browser]:
    """Starts one.

    Args:
        keeps_pages: whether it keeps pages alive for the back button, as people's browsers do.
    """
    left_out = ["--disable-back-forward-cache"] if keeps_pages else None
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium(), args=ARGUMENTS, ignore_default_args=left_out, timeout=HANG_SECONDS * 1000
        )
        expect.set_options(timeout=HANG_SECONDS * 1000)
        yield browser
        await browser.close()


# --- the server -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Served:
    """The ready server, and its database."""

    process: ServerProcess
    database: Path

    @property
    def url(self) -> str:
        """Where it is."""
        return self.process.url

    def client(self, **headers: str) -> httpx2.Client:
        """Returns a browser without a screen, with cookies of its own."""
        client = self.process.client()
        client.headers.update(NAVIGATION | headers)
        return client

    async def age_proof(self, context: BrowserContext) -> None:
        """Puts an hour between now and a visitor's sign-in, as if it had passed: their tokens say so."""
        for cookie in await context.cookies(self.url):
            token = cookie["value"]
            claims = jwt.decode(token, options={"verify_signature": False})
            key = await steal(f"sqlite:///{self.database}", jwt.get_unverified_header(token)["kid"])
            aged = key.signed(Kind(claims["type"]), claims | {"auth_time": claims["auth_time"] - 3600})
            await context.add_cookies([{**cookie, "value": aged}])  # type: ignore[typeddict-item]  # what it gave


@contextlib.contextmanager
def served_pages(folder: Path, template: Path, **variables: str) -> Iterator[Served]:
    """Serves pages from a database made beforehand, without limits unless told."""
    database = folder / "latchstring.db"
    shutil.copy(template, database)
    own = {"LATCHSTRING_DATABASE_URL": f"sqlite:///{database}", "LATCHSTRING_SECRET": SECRET}
    with ServerProcess(folder, variables={**CHEAP_HASH, **NO_LIMITS, **own, **variables}) as process:
        yield Served(process, database)


# --- what a browser complains of --------------------------------------------------------------------------------------


@dataclass
class Watch:
    """All that pages of one visitor should never bring about."""

    complaints: list[str] = field(default_factory=list)
    documents: list[Request] = field(default_factory=list)
    """Each page that was asked for, redirects included."""

    async def begin(self, context: BrowserContext) -> None:
        """Listens to every page of a context."""
        await context.add_init_script(_TELL_OF_VIOLATIONS)
        context.on("console", self._hear)
        context.on("weberror", self._see_error)
        context.on("dialog", self._dismiss)
        context.on("request", self._see_request)
        context.on("requestfailed", self._see_failure)
        context.on("response", self._see_answer)

    def paths(self) -> list[str]:
        """Returns what was asked for, without the origin."""
        return [f"{request.method} /{request.url.split('/', 3)[3]}" for request in self.documents]

    def _hear(self, message: ConsoleMessage) -> None:
        # Of a page whose status says that it is an error, Chromium says so too.
        is_status = message.text.startswith("Failed to load resource: the server responded with a status of")
        if message.text.startswith("Clear-Site-Data header on"):
            return  # it tells what it has cleared, as it was asked to
        if not (is_status and message.location["url"] in {request.url for request in self.documents}):
            self.complaints.append(f"console: {message.text} at {message.location['url']}")

    def _see_error(self, error: WebError) -> None:
        self.complaints.append(f"error: {error.error}")

    async def _dismiss(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        await dialog.dismiss()

    def _see_request(self, request: Request) -> None:
        if request.is_navigation_request():
            self.documents.append(request)

    def _see_failure(self, request: Request) -> None:
        # Who moves on before everything is there has complained of nothing.
        if request.failure != "net::ERR_ABORTED":
            self.complaints.append(f"failed: {request.method} {request.url}: {request.failure}")

    def _see_answer(self, response: Response) -> None:
        is_page = response.request.is_navigation_request()
        if response.status >= (HTTPStatus.INTERNAL_SERVER_ERROR if is_page else HTTPStatus.BAD_REQUEST):
            self.complaints.append(f"{response.status}: {response.url}")


@contextlib.asynccontextmanager
async def visiting(
    browser: Browser,
    url: str,
    *,
    javascript: bool = True,
    locale: str | None = None,
    timezone: str | None = None,
    user_agent: str | None = None,
    viewport: ViewportSize | None = None,
) -> AsyncIterator[tuple[Page, Watch]]:
    """Gives a visitor's first page; their browser must have nothing to complain of to the end.

    Args:
        browser: a running one.
        url: where relative addresses begin.
        javascript: whether scripts run.
        locale: the browser's language.
        timezone: where the visitor is.
        user_agent: what the browser calls itself.
        viewport: how large its window is.
    """
    context = await browser.new_context(
        base_url=url,
        java_script_enabled=javascript,
        locale=locale,
        timezone_id=timezone,
        user_agent=user_agent,
        viewport=viewport or {"width": 1280, "height": 720},
    )
    context.set_default_timeout(HANG_SECONDS * 1000)
    watch = Watch()
    await watch.begin(context)
    try:
        yield await context.new_page(), watch
        assert not watch.complaints, watch.complaints
    finally:
        await context.close()


# --- what a visitor does ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Person:
    """Who signs up."""

    email: str
    password: str = PASSWORD
    first_name: str = "Ada"
    last_name: str = "Lovelace"

    @property
    def name(self) -> str:
        """As the header has it."""
        return f"{self.first_name} {self.last_name}"


async def fill(page: Page, **fields: str) -> None:
    """Fills in fields by their names."""
    for name, value in fields.items():
        await page.locator(f"[name={name}]").fill(value)


async def press(page: Page, name: str) -> None:
    """Presses the button of that name."""
    await page.get_by_role("button", name=name, exact=True).click()


async def sign_up(page: Page, person: Person) -> None:
    """Signs up, and has arrived."""
    await page.goto("/sign-up")
    await fill(
        page,
        first_name=person.first_name,
        last_name=person.last_name,
        email=person.email,
        password=person.password,
    )
    await press(page, "Create account")
    await expect_path(page, "/dashboard")


async def sign_in(page: Page, person: Person, *, password: str | None = None) -> None:
    """Fills in the sign-in page that one is on, and sends it."""
    await fill(page, email=person.email, password=password or person.password)
    await press(page, "Sign in")


async def expect_path(page: Page, path: str) -> None:
    """Waits until the page is there, whatever its query."""
    await expect(page).to_have_url(re.compile(rf"^https?://[^/]+{re.escape(path)}(\?.*)?$"))
