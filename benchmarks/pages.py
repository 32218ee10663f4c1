"""What pages cost: the processor time of each, and the moment at which a browser shows something.

In this process, without a server, but for the browser's.
"""

from pathlib import Path

from benchmarks.library import microseconds
from latchstring.apps.server import prepare
from tests.support.browser import running_browser
from tests.support.pages import Visitor, signed_up
from tests.support.service import Service, cheap_settings, credentials, running_service

PAGES = ("/dashboard", "/account", "/account/password", "/account/sessions", "/account/confirm")
OPEN_PAGES = ("/sign-up", "/sign-in", "/signed-out")
FEW = 100
_FIRST_PAINT = """() => new Promise((done) => {
  new PerformanceObserver((list) => {
    for (const entry of list.getEntriesByName("first-contentful-paint")) done(entry.startTime);
  }).observe({type: "paint", buffered: true});
})"""


async def milliseconds_of_pages(folder: Path) -> dict[str, float]:
    """Return the processor time of one visit to each page, of its read from the database and its guard as well."""
    settings = cheap_settings(f"sqlite:///{folder}/pages.db")
    await prepare(settings)
    async with running_service(settings) as service:
        token = (await _with_many_sessions(service)).browser.cookies["access_token"]
        found = {path: await _milliseconds(service, path, token) for path in PAGES}
        return found | {path: await _milliseconds(service, path, "") for path in OPEN_PAGES}


async def _with_many_sessions(service: Service) -> Visitor:
    ada = await signed_up(service)
    for _ in range(4):
        await Visitor(service.browser()).sends("/sign-in", credentials())
    return ada


async def _milliseconds(service: Service, path: str, token: str) -> float:
    # The first visits compile the templates.
    await microseconds(service.app, path, token, times=5)
    return await microseconds(service.app, path, token, times=FEW) / 1000


async def milliseconds_to_first_paint(address: str, *, times: int) -> list[float]:
    """Return how long it takes until something is seen, each time by a browser that was never there."""
    async with running_browser() as browser:
        found = []
        for _ in range(times + 1):
            context = await browser.new_context()
            page = await context.new_page()
            await page.goto(address)
            found.append(await page.evaluate(_FIRST_PAINT))
            await context.close()
        return found[1:]  # the first one warms the browser up
