"""Every page, as people see it: phone and desktop, light and dark. To be looked at; nothing here can fail but a page.

    .venv/bin/python drills/screenshots.py [--to FOLDER]

Writes `PAGE-phone-light.png` and its like, full height, into `screenshots/`. It takes Chromium.
"""

import argparse
import asyncio
import contextlib
import itertools
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import Browser, BrowserContext, Page, ViewportSize

if __name__ == "__main__":
    # Started as a script: the project's folder makes `tests.support` importable.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tests.support.browser import Person, fill, press, running_browser, sign_in, sign_up
from tests.support.process import CHEAP_HASH, ServerProcess
from tests.support.service import SECRET

VIEWPORTS = {"phone": ViewportSize(width=390, height=844), "desktop": ViewportSize(width=1280, height=800)}
SCHEMES = ("light", "dark")
WRONG = "a wrong password"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.5 Mobile/15E148 Safari/604.1"
)


@dataclass
class Studio:
    """A server, its database, and a browser that has just come."""

    browser: Browser
    url: str
    database: Path
    folder: Path
    taken: int = 0

    @contextlib.asynccontextmanager
    async def visitor(self, user_agent: str | None = None) -> AsyncIterator[Page]:
        """Give the first page of somebody new."""
        context: BrowserContext = await self.browser.new_context(base_url=self.url, user_agent=user_agent)
        yield await context.new_page()
        await context.close()

    async def take(self, page: Page, name: str) -> None:
        """Take a page as it is, in every size and both schemes."""
        for (size, viewport), scheme in itertools.product(VIEWPORTS.items(), SCHEMES):
            await page.set_viewport_size(viewport)
            await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]  # a literal
            await page.screenshot(path=self.folder / f"{name}-{size}-{scheme}.png", full_page=True)
            self.taken += 1

    def change(self, statement: str) -> None:
        """Change something in the database, behind the server's back."""
        with contextlib.closing(sqlite3.connect(self.database, timeout=20)) as connection, connection:
            connection.execute(statement)


async def without_anybody(studio: Studio) -> None:
    """Take what a visitor sees who is not signed in."""
    async with studio.visitor() as page:
        for name, path in (
            ("sign-in", "/sign-in"),
            ("sign-in-ended", "/sign-in?why=ended"),
            ("sign-up", "/sign-up"),
            ("signed-out", "/signed-out"),
            ("not-found", "/nothing"),
            ("refused", "/sign-in?next=//elsewhere.example"),
        ):
            await page.goto(path)
            await studio.take(page, name)
        await page.goto("/sign-up")
        await fill(page, first_name="Ada", email="ada", password="short")
        await press(page, "Create account")
        await studio.take(page, "sign-up-wrong")
        await page.goto("/sign-in")
        for name in ("sign-in-wrong", "too-many"):
            await fill(page, email="ada@example.com", password=WRONG)
            await press(page, "Sign in")
            await studio.take(page, name)
            await page.goto("/sign-in")


async def with_somebody(studio: Studio) -> None:
    """Take what a user sees."""
    grace = Person("grace@example.com", first_name="Grace", last_name="Hopper")
    async with studio.visitor() as page, studio.visitor(IPHONE) as phone:
        await sign_up(page, grace)
        await studio.take(page, "dashboard")
        await phone.goto("/sign-in")
        await sign_in(phone, grace)
        for name, path in (
            ("account", "/account"),
            ("account-saved", "/account?done=saved"),
            ("password", "/account/password"),
            ("sessions", "/account/sessions"),
            ("confirm", "/account/confirm"),
        ):
            await page.goto(path)
            await studio.take(page, name)
        await renewal(studio, page)
        await page.goto("/account/password")
        await fill(page, new_password="short")
        await press(page, "Change password")
        await studio.take(page, "password-wrong")
        studio.change("CREATE TRIGGER full BEFORE UPDATE ON latchstring_users BEGIN SELECT RAISE(ABORT, 'full'); END")
        await page.goto("/account")
        await fill(page, first_name="Amazing")
        await press(page, "Save names")
        await studio.take(page, "broken")
        studio.change("ALTER TABLE latchstring_sessions RENAME TO away")
        await page.goto("/account/sessions")
        await studio.take(page, "unavailable")


async def renewal(studio: Studio, page: Page) -> None:
    """Take what a user sees for a blink who follows a link from another site, and for longer without a script."""
    await page.context.route("**/assets/renew.*", lambda route: route.abort())
    await page.context.route(
        "http://elsewhere.example/",
        lambda route: route.fulfill(body=f'<a href="{studio.url}/account">There</a>', content_type="text/html"),
    )
    await page.goto("http://elsewhere.example/")
    await page.context.clear_cookies(name="access_token")
    await page.get_by_role("link", name="There").click()
    await page.get_by_role("button", name="Continue").wait_for()
    await studio.take(page, "renew")
    await press(page, "Continue")


VISITS: tuple[Callable[[Studio], Awaitable[None]], ...] = (without_anybody, with_somebody)


async def run(folder: Path) -> int:
    """Take all of them; return how many there are."""
    with tempfile.TemporaryDirectory() as home:
        database = Path(home) / "latchstring.db"
        variables = {
            "LATCHSTRING_DATABASE_URL": f"sqlite:///{database}",
            "LATCHSTRING_SECRET": SECRET,
            "LATCHSTRING_LIMIT_ACCOUNT": "1/15m",
        }
        with ServerProcess(Path(home), variables=CHEAP_HASH | variables) as server:
            async with running_browser() as browser:
                studio = Studio(browser, server.url, database, folder)
                for visit in VISITS:
                    await visit(studio)
                return studio.taken


def main() -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="drills/screenshots.py", description="Take pictures of every page.")
    parser.add_argument("--to", type=Path, default=Path("screenshots"), help="the folder (screenshots)")
    folder: Path = parser.parse_args().to
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{asyncio.run(run(folder))} pictures in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
