"""Two tabs of one browser, with tokens of five seconds: while one renews, the other confirms. Nobody is signed out.

    .venv/bin/python drills/tabs.py [--rounds N] [--database sqlite|postgresql]

Real pages in Chromium. The two requests of a round are held in the browser until both are there, and let go at the same
moment, or one a little before the other. It takes Chromium, or the one that LATCHSTRING_TEST_BROWSER names.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from playwright.async_api import BrowserContext, Page, Response, Route, expect
from playwright.async_api import TimeoutError as PlaywrightTimeoutError

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from drills.ground import Figure, Says, main, serving
from drills.visitors import REFRESH, WORKERS, Pair, operator, rows_of
from latchstring.core.sessions.tables import sessions
from tests.support.browser import Person, expect_path, fill, found_chromium, press, running_browser, sign_up
from tests.support.process import ServerProcess

CONFIRM = "/account/confirm"
GRACE = Person("grace@example.com", first_name="Grace", last_name="Hopper")
_TOKENS_OF_FIVE_SECONDS = {"LATCHSTRING_ACCESS_TOKEN_EXPIRE_MINUTES": "0.0834"}
_LEADS = (0.0, 0.0, 0.002, 0.002, 0.0, 0.0, 0.01, 0.01)
"""How long one waits after the other was let go, in seconds; by turns it is the renewal and the confirmation."""
_WAIT_SECONDS = 60
_STALE_SECONDS = 4.0  # a page gives up after eight, and asks again


@dataclass(frozen=True)
class Asked:
    """A request of a tab: when it was let go, and what it was answered with."""

    status: int
    sent_at: float
    answered_at: float


@dataclass(frozen=True)
class Round:
    """What both tabs heard, and what the browser had afterwards."""

    renewed: Asked
    confirmed: Asked
    held: int
    """The generation of the refresh token in the browser."""
    newest: int
    """That of the session's row."""

    @property
    def is_answered_well(self) -> bool:
        """Whether both heard what they should hear."""
        return (self.renewed.status, self.confirmed.status) == (200, 303)

    @property
    def has_overlapped(self) -> bool:
        """Whether both were in flight at the same time."""
        begun = max(self.renewed.sent_at, self.confirmed.sent_at)
        return begun < min(self.renewed.answered_at, self.confirmed.answered_at)


@dataclass(frozen=True)
class Seen:
    """All rounds, and the end."""

    rounds: Sequence[Round]
    is_signed_in: bool
    """Whether, at the end, a click in either tab leads to the account."""
    living: int
    ended: int


@dataclass(frozen=True)
class Held:
    """A request that the browser was about to send."""

    route: Route
    at: float = field(default_factory=time.monotonic)


@dataclass
class Tabs:
    """Two pages of one browser, and the requests that are held."""

    confirming: Page
    renewing: Page
    confirmations: asyncio.Queue[Held] = field(default_factory=asyncio.Queue)
    renewals: asyncio.Queue[Held] = field(default_factory=asyncio.Queue)

    @classmethod
    async def of(cls, context: BrowserContext) -> "Tabs":
        """Open both, signed in."""
        tabs = cls(await context.new_page(), await context.new_page())
        await sign_up(tabs.confirming, GRACE)
        # Left to itself, either tab would renew for both. Here it is to be the other one.
        await tabs.confirming.route("**/assets/session.*", lambda route: route.abort())
        await tabs.confirming.route(f"**{CONFIRM}", tabs._hold_confirmation)
        await tabs.renewing.route(f"**{REFRESH}", lambda route: tabs.renewals.put_nowait(Held(route)))
        await tabs.confirming.goto(CONFIRM)
        await tabs.renewing.goto("/account")
        return tabs

    async def _hold_confirmation(self, route: Route) -> None:
        if route.request.method == "POST":
            self.confirmations.put_nowait(Held(route))
        else:
            await route.continue_()

    async def renewal(self) -> Held:
        """Wait for one that its page still waits for."""
        held = await self.renewals.get()
        while time.monotonic() - held.at > _STALE_SECONDS:
            held = await self.renewals.get()
        return held


def drill(url: str, *, rounds: int, workers: int = WORKERS) -> list[Figure]:
    """Return what was seen."""
    with serving(url, workers=workers, variables=_TOKENS_OF_FIVE_SECONDS) as server:
        seen = asyncio.run(_rounds(server, url, rounds=rounds))
    return _figures(seen, rounds=rounds)


async def _rounds(server: ServerProcess, url: str, *, rounds: int) -> Seen:
    newest = sa.select(sessions.c.generation, sessions.c.revoked_at).order_by(sessions.c.created_at)
    seen: list[Round] = []
    is_signed_in = False
    async with running_browser() as browser, operator(url) as auth:
        context = await browser.new_context(base_url=server.url)
        tabs = await Tabs.of(context)
        try:
            for number in range(rounds):
                renewed, confirmed = await _round(tabs, number)
                held = await _pair(context)
                row = (await rows_of(auth, newest))[-1]
                seen.append(Round(renewed, confirmed, held=held.generation, newest=row.generation))
                await tabs.confirming.goto(CONFIRM)
            for tab in (tabs.confirming, tabs.renewing):
                await tab.get_by_role("link", name="Account", exact=True).click()
                await expect_path(tab, "/account")
                await expect(tab.get_by_role("heading", level=1)).to_have_text("Account")
            is_signed_in = True
        except (AssertionError, PlaywrightTimeoutError, TimeoutError):
            # A tab that is out asks for no renewal any more, and shows the sign-in page: the drill is over.
            pass
        rows = await rows_of(auth, newest)
        await context.close()
    ended = sum(row.revoked_at is not None for row in rows)
    return Seen(seen, is_signed_in=is_signed_in, living=len(rows) - ended, ended=ended)


async def _round(tabs: Tabs, number: int) -> tuple[Asked, Asked]:
    await fill(tabs.confirming, confirm_password=GRACE.password)
    async with asyncio.timeout(_WAIT_SECONDS):
        pressed = asyncio.create_task(press(tabs.confirming, "Confirm"))
        confirmation = await tabs.confirmations.get()
        renewal = await tabs.renewal()
        lead = _LEADS[number % len(_LEADS)]
        renewed, confirmed = await asyncio.gather(
            _let_go(tabs.renewing, renewal, after=lead * (number % 2)),
            _let_go(tabs.confirming, confirmation, after=lead * (1 - number % 2)),
        )
        await pressed
    await expect_path(tabs.confirming, "/dashboard")
    return renewed, confirmed


async def _let_go(page: Page, held: Held, *, after: float) -> Asked:
    request = held.route.request

    def is_answer(response: Response) -> bool:
        # A form that came a moment too late for its access token goes by /renew, and comes back.
        return (response.request.method, response.url) == ("POST", request.url) and response.status != 307

    if after:
        await asyncio.sleep(after)
    async with page.expect_response(is_answer) as answered:
        sent_at = time.monotonic()
        await held.route.continue_()
    response = await answered.value
    return Asked(response.status, sent_at=sent_at, answered_at=time.monotonic())


async def _pair(context: BrowserContext) -> Pair:
    cookies = {each["name"]: each["value"] for each in await context.cookies()}
    return Pair(cookies["access_token"], cookies["refresh_token"])


def _figures(seen: Seen, *, rounds: int) -> list[Figure]:
    answered = sum(each.is_answered_well for each in seen.rounds)
    overlapped = sum(each.has_overlapped for each in seen.rounds)
    first = sum(each.renewed.answered_at < each.confirmed.answered_at for each in seen.rounds)
    newest = sum(each.held == each.newest for each in seen.rounds)
    return [
        Figure(
            promise="one tab confirms while the other one renews: both succeed",
            seen=f"{answered} of {rounds}",
            is_kept=answered == rounds,
        ),
        Figure(
            promise="(both requests were in flight at the same time)",
            seen=f"{overlapped} of {rounds}; the renewal was answered first {first} times",
            is_kept=overlapped > rounds / 4,
            says=Says.CONDITION,
        ),
        Figure(
            promise="the browser is left with tokens of the session's newest generation",
            seen=f"{newest} of {rounds}",
            is_kept=newest == rounds,
        ),
        Figure(
            promise="nobody is signed out: at the end a click in either tab leads to the account",
            seen="both" if seen.is_signed_in else f"signed out after {len(seen.rounds)} rounds",
            is_kept=seen.is_signed_in,
        ),
        Figure(
            promise="no session is ended",
            seen=f"{seen.ended} ended, {seen.living} alive",
            is_kept=(seen.ended, seen.living) == (0, 1),
        ),
    ]


if __name__ == "__main__":
    if found_chromium() is None:
        sys.exit("drills/tabs.py takes Chromium. Install it, or name one in LATCHSTRING_TEST_BROWSER.")
    sys.exit(main(drill, rounds=50))
