"""Every page, for everybody: by axe's rules, by keyboard alone, on a small screen, enlarged, and in forced colours."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.async_api import Browser, Page, Route, ViewportSize, expect

from tests.support.browser import (
    Person,
    Served,
    expect_path,
    fill,
    press,
    served_pages,
    sign_in,
    sign_up,
    visiting,
)
from tests.support.served import served
from tests.support.service import PASSWORD, SECRET

pytest_plugins = ["tests.support.shared_browser"]

DESK: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 320, "height": 640}
ENLARGED: ViewportSize = {"width": 640, "height": 400}
"""What is left of a desk's window at 200 %."""
LEAST_TARGET = 44
AXE = (resources.files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
WRONG_PASSWORD = "not the password"
HOST = '''"""A host whose subscriber is broken: nobody can be registered."""

import os

from fastapi import FastAPI

from latchstring import Auth, Pages, Settings, UserRegistered

app = FastAPI()
settings = Settings(password_hash_memory_kib=8, password_hash_passes=1)
auth = Auth(
    "sqlite+aiosqlite:///app.db", secret=os.environ["APP_SECRET"], settings=settings, pages=Pages(name="Acme")
)
auth.install(app, prefix="/auth")


@auth.inside(UserRegistered)
async def break_it(event, connection):
    raise RuntimeError("broken")
'''


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Served]:
    generous = {f"LATCHSTRING_LIMIT_{name}": "10000/1m" for name in ("ADDRESS", "REFRESH", "REGISTER")}
    limits = {"LATCHSTRING_LIMITS": "on", "LATCHSTRING_LIMIT_ACCOUNT": "3/15m", **generous}
    with served_pages(tmp_path_factory.mktemp("accessible"), sqlite_template, **limits) as running:
        yield running


@pytest.fixture(scope="module")
def broken_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("host")
    (folder / "broken_host.py").write_text(HOST)
    with served(folder, "broken_host:app", cwd=folder, variables={"APP_SECRET": SECRET}) as url:
        yield url


@dataclass(frozen=True)
class Visit:
    """One page of one visitor, which is led from state to state: a window of its own for each would cost more."""

    page: Page
    server: Served
    person: Person
    broken_host: Callable[[], str]

    def sign_in_elsewhere(self, **headers: str) -> None:
        """Signs the same person in, in a browser without a screen."""
        with self.server.client(**headers) as client:
            answer = client.post("/sign-in", data={"email": self.person.email, "password": self.person.password})
            assert answer.status_code == 303


@pytest.fixture
async def visit(browser: Browser, server: Served, request: pytest.FixtureRequest) -> AsyncIterator[Visit]:
    """Somebody who is not signed in."""
    # Axe is a script that our policy would refuse; that the pages keep to the policy is tested elsewhere. And a colour
    # that is on its way to another one is neither.
    context = await browser.new_context(base_url=server.url, bypass_csp=True, reduced_motion="reduce")
    person = Person(f"{uuid4()}@example.com")
    yield Visit(await context.new_page(), server, person, lambda: request.getfixturevalue("broken_host"))
    await context.close()


# --- the states -------------------------------------------------------------------------------------------------------


State = Callable[[Visit], Awaitable[None]]


def at(path: str) -> State:
    """Returns how one comes to a page."""

    async def come(visit: Visit) -> None:
        await visit.page.goto(path)

    return come


async def wrong_sign_up(visit: Visit) -> None:
    page = visit.page
    await page.goto("/sign-up")
    await fill(page, first_name="Ada", email="nobody", password="short")
    await press(page, "Create account")
    await expect(page.get_by_role("alert")).to_be_visible()


async def empty_sign_in(visit: Visit) -> None:
    page = visit.page
    await page.goto("/sign-in")
    await press(page, "Sign in")
    await expect(page.get_by_role("alert")).to_be_visible()


async def wrong_sign_in(visit: Visit) -> None:
    page = visit.page
    await page.goto("/sign-in")
    await sign_in(page, Person("nobody@example.com"))
    await expect(page.get_by_role("alert")).to_be_visible()


async def wrong_account(visit: Visit) -> None:
    page = visit.page
    await page.goto("/account")
    await fill(page, first_name="", last_name="x" * 101)
    await press(page, "Save names")
    await expect(page.get_by_role("alert")).to_be_visible()


async def wrong_password(visit: Visit) -> None:
    page = visit.page
    await page.goto("/account/password")
    await fill(page, current_password=WRONG_PASSWORD, new_password="another one")
    await press(page, "Change password")
    await expect(page.get_by_role("alert")).to_be_visible()


async def sessions(visit: Visit) -> None:
    for agent in (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) Version/26.0 Mobile/15E148 Safari/604.1",
        "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
        "x" * 200,
    ):
        visit.sign_in_elsewhere(**{"User-Agent": agent})
    await visit.page.goto("/account/sessions?done=ended")


async def stopped_form(visit: Visit) -> None:
    page = visit.page
    visit.sign_in_elsewhere()
    await visit.server.age_proof(page.context)
    await page.goto("/account/sessions")
    await page.context.clear_cookies(name="access_token")
    await press(page, "End all other sessions")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Confirm that it is you")


async def stopped_form_wrong(visit: Visit) -> None:
    page = visit.page
    await fill(page, confirm_password=WRONG_PASSWORD)
    await press(page, "Confirm")
    await expect(page.get_by_role("alert")).to_be_visible()


async def from_elsewhere(visit: Visit) -> None:
    page = visit.page

    async def fulfil(route: Route) -> None:
        link = f'<a href="{visit.server.url}/account">There</a>'
        await route.fulfill(body=link, content_type="text/html")

    async def keep_away(route: Route) -> None:
        await route.abort()

    await page.route("http://elsewhere.example/", fulfil)
    # As where there is no script: the page would be gone before it is looked at.
    await page.route("**/assets/renew.*", keep_away)
    await page.goto("http://elsewhere.example/")
    await page.context.clear_cookies(name="access_token")
    await page.get_by_role("link", name="There").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("One moment")
    await expect(page.get_by_role("button", name="Continue")).to_be_visible()


async def too_many_tries(visit: Visit) -> None:
    page = visit.page
    await page.goto("/sign-in")
    with visit.server.client() as client:
        for _ in range(3):
            wrong = client.post("/sign-in", data={"email": "guessed@example.com", "password": WRONG_PASSWORD})
            assert wrong.status_code == 422
    await sign_in(page, Person("guessed@example.com"))
    await expect(page.get_by_role("heading", level=1)).to_have_text("Too many tries")


async def something_broke(visit: Visit) -> None:
    page = visit.page
    await page.goto(f"{visit.broken_host()}/auth/sign-up")
    await fill(page, first_name="Ada", last_name="Lovelace", email="ada@example.com", password=PASSWORD)
    await press(page, "Create account")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Something broke here")


# The last of a table are those that change more than the page.
TABLES: dict[str, dict[str, State]] = {
    "signing in": {
        "sign-up": at("/sign-up"),
        "sign-up, wrong": wrong_sign_up,
        "sign-in": at("/sign-in"),
        "sign-in, ended": at("/sign-in?why=ended"),
        "sign-in, empty": empty_sign_in,
        "sign-in, wrong": wrong_sign_in,
        "signed out": at("/signed-out"),
    },
    "going wrong": {
        "not found": at("/nowhere"),
        "refused": at("/sign-in?next=https://evil.example/"),
        "too many tries": too_many_tries,
        "broken": something_broke,
    },
    "account": {
        "account": at("/account"),
        "account, saved": at("/account?done=saved"),
        "account, wrong": wrong_account,
        "password": at("/account/password"),
        "password, changed": at("/account/password?done=changed"),
        "password, wrong": wrong_password,
    },
    "sessions": {
        "dashboard": at("/dashboard"),
        "sessions": sessions,
        "confirm": at("/account/confirm"),
        "renew": from_elsewhere,
        "confirm, stopped": stopped_form,
        "confirm, stopped, wrong": stopped_form_wrong,
    },
}


# --- what holds of each -----------------------------------------------------------------------------------------------


async def axe_finds_nothing(page: Page) -> None:
    """No rule of WCAG 2.2 AA that can be judged by a program is broken, nor one of good practice; light and dark."""
    await page.evaluate(AXE)
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        # What differs between the two is colours.
        only = {"type": "tag", "values": RULES} if scheme == "light" else {"type": "rule", "values": ["color-contrast"]}
        wrong, passed = await page.evaluate(_JUDGE, only)
        assert wrong == [], scheme
        assert passed > 0


# What color-mix() comes to is in a notation that axe does not read: it is written out for as long as axe looks.
_JUDGE = """async (runOnly) => {
  const brush = new OffscreenCanvas(1, 1).getContext("2d");
  const written = [];
  for (const element of document.querySelectorAll("*")) {
    for (const property of ["color", "background-color"]) {
      const value = getComputedStyle(element).getPropertyValue(property);
      if (value.startsWith("rgb")) continue;
      brush.clearRect(0, 0, 1, 1);
      brush.fillStyle = value;
      brush.fillRect(0, 0, 1, 1);
      const [red, green, blue, alpha] = brush.getImageData(0, 0, 1, 1).data;
      written.push([element, property, `rgb(${red} ${green} ${blue} / ${alpha / 255})`]);
    }
  }
  for (const [element, property, value] of written) element.style.setProperty(property, value);
  const {violations, incomplete, passes} = await axe.run({runOnly});
  for (const [element] of written) element.removeAttribute("style");
  const wrong = [...violations, ...incomplete].map(
    (each) => `${each.id}: ${each.help}: ${each.nodes.map((node) => node.html + node.failureSummary).join("; ")}`,
  );
  return [wrong, passes.length];
}"""


async def nothing_reaches_over_the_side(page: Page) -> None:
    """320 pixels are enough, and so is half a window: nobody has to scroll sideways to read a line."""
    over = await page.evaluate(_OVER_THE_SIDE)
    assert over == [], page.viewport_size


_OVER_THE_SIDE = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  return [...document.querySelectorAll("body *")]
    .filter(element => element.getBoundingClientRect().right > width)
    .map(element => element.outerHTML.slice(0, 200));
}"""


async def what_is_to_be_hit_is_large_enough(page: Page) -> None:
    """Each button and each field is at least 44 pixels high and wide, on a phone as well."""
    small = await page.evaluate(_SMALL_TARGETS, LEAST_TARGET)
    assert small == [], page.viewport_size


_SMALL_TARGETS = """(least) =>
  [...document.querySelectorAll("button, input, select, a.button, nav a")]
    .filter(element => element.checkVisibility())
    .map(element => [element, element.getBoundingClientRect()])
    .filter(([, box]) => Math.round(box.height) < least || Math.round(box.width) < least)
    .map(([element, box]) => `${box.width} x ${box.height}: ${element.outerHTML.slice(0, 200)}`)
"""


async def the_keyboard_gets_everywhere(page: Page) -> None:
    """Tab reaches all there is, in the order of the page, in sight and marked; in forced colours as well."""
    count = await page.evaluate(_BEGIN_WALK)
    assert count > 1
    for index in range(count):
        if index:
            await page.keyboard.press("Tab")
        assert await page.evaluate(_STEP) == {"index": index, "isMarked": True, "isInSight": True}
    await page.emulate_media(forced_colors="active")
    assert await page.evaluate(_UNMARKED) == []
    await page.emulate_media(forced_colors="none")


# As a key does it: what has the focus by a click or a script need not be marked.
_BEGIN_WALK = """() => {
  const all = "a[href], button, input, select, textarea, summary, [tabindex='0']";
  window.walk = [...document.querySelectorAll(all)].filter((each) => each.checkVisibility() && !each.disabled);
  window.isMarked = () => {
    const isOutlined = (each) => {
      const style = getComputedStyle(each);
      return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
    };
    // A password's frame is around the field and its button.
    const element = document.activeElement;
    return isOutlined(element) || (element.matches("input") && isOutlined(element.parentElement));
  };
  window.walk[0].focus({focusVisible: true});
  return window.walk.length;
}"""
_STEP = """() => {
  const box = document.activeElement.getBoundingClientRect();
  const isInSight = box.width > 0 && box.top >= 0 && box.left >= 0 && box.bottom <= innerHeight
    && box.right <= innerWidth;
  return {index: window.walk.indexOf(document.activeElement), isMarked: window.isMarked(), isInSight};
}"""
_UNMARKED = """() => window.walk
  .filter((each) => {
    each.focus({focusVisible: true});
    return !window.isMarked();
  })
  .map((each) => each.outerHTML)
"""


@pytest.mark.parametrize("table", TABLES)
async def test_every_page_is_for_everybody(visit: Visit, table: str, subtests: pytest.Subtests) -> None:
    """Each in each of its states, one after the other on one page."""
    page = visit.page
    if table in {"account", "sessions"}:
        await sign_up(page, visit.person)
    for name, come in TABLES[table].items():
        with subtests.test(name):
            await come(visit)
            await page.set_viewport_size(DESK)
            await axe_finds_nothing(page)
            await what_is_to_be_hit_is_large_enough(page)
            await page.set_viewport_size(ENLARGED)
            await nothing_reaches_over_the_side(page)
            await page.set_viewport_size(PHONE)
            await nothing_reaches_over_the_side(page)
            await what_is_to_be_hit_is_large_enough(page)
            # On a phone, where what has the focus has to be scrolled to.
            await the_keyboard_gets_everywhere(page)
            await page.unroute_all()


# --- by keyboard alone ------------------------------------------------------------------------------------------------


async def test_sign_up_and_sign_in_by_keyboard(browser: Browser, server: Served) -> None:
    """Without a pointer: the skip link leads past the header, Enter sends, and what went wrong has the focus."""
    ada = Person("keyboard@example.com")
    async with visiting(browser, server.url) as (page, _):

        async def tab(*, times: int = 1) -> None:
            for _ in range(times):
                await page.keyboard.press("Tab")

        await page.goto("/sign-up")
        await tab()
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("main")).to_be_focused()
        await tab()
        await expect(page.locator("[name=first_name]")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_be_focused()
        await expect(page).to_have_title("Error: Create an account – Latchstring")
        # The summary leads to each field that is wrong.
        await tab()
        await page.keyboard.press("Enter")
        await expect(page.locator("[name=first_name]")).to_be_focused()
        for typed in (ada.first_name, ada.last_name, ada.email, ada.password):
            await page.keyboard.type(typed)
            await tab()
        await expect(page.get_by_role("button", name="Show")).to_be_focused()
        await tab()
        await expect(page.get_by_role("button", name="Create account")).to_be_focused()
        await page.keyboard.press("Space")
        await expect_path(page, "/dashboard")
        sign_out = page.get_by_role("button", name="Sign out")
        await tab(times=3)
        await expect(sign_out).to_be_focused()
        await page.keyboard.press("Enter")
        await expect_path(page, "/signed-out")
        await tab(times=3)
        await page.keyboard.press("Enter")
        await expect_path(page, "/sign-in")
        await tab(times=3)
        await expect(page.locator("[name=email]")).to_be_focused()
        await page.keyboard.type(ada.email)
        await tab()
        await page.keyboard.type(ada.password)
        await tab(times=2)
        await page.keyboard.press("Enter")
        await expect_path(page, "/dashboard")


async def test_a_failed_form_begins_at_what_went_wrong(browser: Browser, server: Served) -> None:
    """Its summary has the focus, its title begins with it, and it leads to the fields: without a script as well."""
    async with visiting(browser, server.url, javascript=False) as (page, _):
        await page.goto("/sign-in")
        await press(page, "Sign in")
        await expect(page).to_have_title("Error: Sign in – Latchstring")
        await expect(page.get_by_role("alert")).to_be_focused()
        await page.get_by_role("alert").get_by_role("link").last.click()
        await expect(page.locator("[name=password]")).to_be_focused()
        await expect(page.locator("[name=password]")).to_have_accessible_description("Error: Enter your password.")
