"""Pages in an application that has more than sign-in: its own look, its own templates, its own guarded pages."""

import contextlib
import re
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import httpx2
import pytest
from fastapi import Depends, FastAPI
from starlette.responses import HTMLResponse

from latchstring import (
    DEFAULT_FEATURES,
    Auth,
    Caller,
    ConfigurationError,
    CurrentUser,
    Feature,
    Pages,
    PageUser,
    PasswordFeature,
    ProfileFeature,
    Settings,
    User,
    UserRegistered,
    current_user,
    fresh,
    on_page,
    requires,
)
from latchstring.testing import ManualClock
from tests.support.backends import WITH_PAGES
from tests.support.host import HOST
from tests.support.pages import NAVIGATION, SIGN_UP, Visitor, hidden, text, title
from tests.support.service import PASSWORD

pytestmark = WITH_PAGES

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"])


class Shop:
    """An application with pages of ours and of its own."""

    def __init__(
        self,
        settings: Settings,
        clock: ManualClock,
        *,
        pages: bool | Pages = True,
        features: Iterable[Feature] = DEFAULT_FEATURES,
    ) -> None:
        self.app = app = FastAPI()
        self.auth = Auth.from_settings(settings, pages=pages, features=features, clock=clock)
        self.auth.install(app, prefix="/auth")

        @app.get("/orders", response_class=HTMLResponse)
        async def orders(user: PageUser) -> str:
            return f"Orders of {user.first_name}"

        @app.post("/orders")
        async def order(user: PageUser, what: str = "") -> str:
            return f"{what} for {user.first_name}"

        @app.get("/delete", response_class=HTMLResponse)
        async def delete(caller: Annotated[Caller, Depends(on_page(fresh(minutes=5)))]) -> str:
            return f"Delete {caller.user_id}?"

        @app.get("/admin", response_class=HTMLResponse)
        async def admin(caller: Annotated[Caller, Depends(on_page(requires(role="admin")))]) -> str:
            return f"Hello, {caller.user_id}"

        @app.get("/me")
        async def me(user: CurrentUser) -> str:
            return user.email

    @contextlib.asynccontextmanager
    async def open(self, *, root_path: str = "") -> AsyncIterator[Visitor]:
        async with self.app.router.lifespan_context(self.app):
            transport = httpx2.ASGITransport(self.app, raise_app_exceptions=False, root_path=root_path)
            async with httpx2.AsyncClient(transport=transport, base_url=HOST) as browser:
                yield Visitor(browser)


@ON_SQLITE
async def test_one_switch(settings: Settings, clock: ManualClock) -> None:
    """`pages=True`: the same pages below the prefix, and after signing up the account page."""
    async with Shop(settings, clock).open() as came:
        page = await came.goes("/auth/account")
        assert page.url.path == "/auth/sign-in"
        assert hidden(page, "/auth/sign-in") == {}
        seen = await came.sends_and_goes("/auth/sign-up", SIGN_UP)
        assert (seen.status_code, seen.url.path) == (200, "/auth/account")
        for address in re.findall(r'(?:src|href)="([^"#]+)"', seen.text):
            assert (await came.browser.get(address, headers=NAVIGATION)).status_code in {200, 303}, address
        assert 'data-renewal-url="/auth/refresh"' in seen.text
        assert (await came.asks("/.well-known/change-password")).headers["location"] == "/auth/account/password"
        assert (await came.sends("/auth/sign-out")).headers["location"] == "/auth/signed-out"


@ON_SQLITE
async def test_without_the_switch_there_are_none(settings: Settings, clock: ManualClock) -> None:
    """Neither pages nor their address for password managers."""
    async with Shop(settings, clock, pages=False).open() as came:
        for path in ("/auth/sign-in", "/auth/account", "/auth/renew", "/.well-known/change-password"):
            assert (await came.asks(path)).status_code == 404
        # A guard for pages says what is missing.
        assert (await came.asks("/orders")).status_code == 500


@ON_SQLITE
async def test_a_page_of_the_applications_own(settings: Settings, clock: ManualClock) -> None:
    """Who is not signed in is sent to sign in, and back; an expired token is renewed on the way; JSON is as it was."""
    async with Shop(settings, clock).open() as came:
        asked = await came.asks("/orders?page=2")
        assert (asked.status_code, asked.headers["cache-control"]) == (303, "no-store")
        assert asked.headers["location"] == "/auth/sign-in?next=%2Forders%3Fpage%3D2"
        seen = await came.sends_and_goes("/auth/sign-up", SIGN_UP | {"next": "/orders?page=2"})
        assert (seen.text, str(seen.url)) == ("Orders of Ada", f"{HOST}/orders?page=2")
        clock.advance(minutes=16)
        assert (await came.goes("/orders")).text == "Orders of Ada"
        clock.advance(minutes=16)
        answer = await came.sends_and_goes("/orders?what=tea")
        assert [each.status_code for each in answer.history] == [307, 307]
        assert answer.json() == "tea for Ada"
        clock.advance(minutes=16)
        assert (await came.asks("/me")).json()["detail"] == "You must refresh"
        clock.advance(days=31)
        assert "Your session has ended." in text(await came.goes("/orders"))


@ON_SQLITE
async def test_a_page_that_asks_for_a_fresh_proof_or_a_role(settings: Settings, clock: ManualClock) -> None:
    """To the page that confirms, and back; a role that is missing is no matter of signing in again."""
    async with Shop(settings, clock).open() as came:
        await came.sends("/auth/sign-up", SIGN_UP)
        assert (await came.asks("/delete")).status_code == 200
        clock.advance(minutes=6)
        page = await came.goes("/delete")
        assert page.url.path == "/auth/account/confirm"
        confirmed = hidden(page, "/auth/account/confirm") | {"confirm_password": PASSWORD}
        assert (await came.sends_and_goes("/auth/account/confirm", confirmed)).text.startswith("Delete ")
        refused = await came.asks("/admin")
        assert (refused.status_code, "location" in refused.headers) == (403, False)


@ON_SQLITE
async def test_a_page_of_an_application_that_is_mounted(settings: Settings, clock: ManualClock) -> None:
    """Leads to the pages where they are, and back to where it is itself."""
    shop, admin = Shop(settings, clock), FastAPI()
    shop.auth.attach(admin)
    shop.app.mount("/admin", admin)

    @admin.get("/stock", response_class=HTMLResponse)
    async def stock(user: PageUser) -> str:
        return f"Stock for {user.first_name}"

    for root in ("", "/shop"):
        async with shop.open(root_path=root) as came:
            asked = await came.asks(f"{root}/admin/stock")
            assert asked.headers["location"] == f"{root}/auth/sign-in?next={quote(root + '/admin/stock', safe='')}"
            filled = SIGN_UP | {"next": f"{root}/admin/stock", "email": f"ada{len(root)}@example.com"}
            assert (await came.sends_and_goes(f"{root}/auth/sign-up", filled)).text == "Stock for Ada"
            clock.advance(minutes=16)
            assert (await came.goes(f"{root}/admin/stock")).text == "Stock for Ada"


@ON_SQLITE
async def test_what_breaks_is_kept_by_nobody(settings: Settings, clock: ManualClock) -> None:
    """A page of ours that broke says so itself, with all that a page carries, where nothing else would."""
    shop = Shop(settings, clock)

    @shop.auth.inside(UserRegistered)
    async def fail(_fact: UserRegistered, _connection: object) -> None:
        raise RuntimeError("as if the disk were full")

    async with shop.open() as came:
        answer = await came.sends("/auth/sign-up", SIGN_UP)
        assert (answer.status_code, answer.headers["cache-control"]) == (500, "no-store")
        assert "script-src 'self'" in answer.headers["content-security-policy"]


def test_on_page_takes_guards_of_ours_only() -> None:
    with pytest.raises(ConfigurationError, match="a guard of ours"):
        on_page(lambda: None)
    assert on_page(current_user) == on_page(current_user)
    assert on_page(current_user) != on_page(fresh(minutes=5))


@ON_SQLITE
async def test_guards_of_pages_are_guards(settings: Settings, clock: ManualClock) -> None:
    """The doctor sees them, the document tells of them, and a test can override them."""
    shop = Shop(settings, clock)
    inspected = {route.path: str(route.access) for route in (await shop.auth.audit(shop.app)).routes}
    assert inspected["/orders"] == inspected["/delete"] == inspected["/admin"] == "guarded"
    assert inspected["/auth/account"] == "guarded"
    assert inspected["/auth/sign-in"] == "public"
    assert "401" in shop.app.openapi()["paths"]["/orders"]["get"]["responses"]
    assert not any("/auth/sign-in" in path for path in shop.app.openapi()["paths"])

    async def somebody() -> User:
        return (await shop.auth.users.list())[0]

    shop.app.dependency_overrides[on_page(current_user)] = somebody
    async with shop.open() as came:
        await came.sends("/auth/sign-up", SIGN_UP)
        came.browser.cookies.clear()
        assert (await came.asks("/orders")).text == "Orders of Ada"


@ON_SQLITE
async def test_name_logo_theme_links_and_home(settings: Settings, clock: ManualClock) -> None:
    """What `Pages` says is what is seen; CSS variables come as a style sheet of their own, after ours."""
    look = Pages(
        name="Driftwood & Co.",
        logo="/static/logo.svg",
        theme={"accent": "light-dark(#0b6e4f, #6fd6ae)", "radius": "0"},
        landing_page="/orders",
        links=[("Orders", "/orders")],
    )
    async with Shop(settings, clock, pages=look).open() as came:
        page = await came.asks("/auth/sign-in")
        assert title(page) == "Sign in – Driftwood & Co."
        assert '<img src="/static/logo.svg"' in page.text
        sheets = re.findall(r'<link rel="stylesheet" href="([^"]+)"', page.text)
        assert [re.sub(r"\.[0-9a-f]{12}\.", ".", sheet) for sheet in sheets] == [
            "/auth/assets/latchstring.css",
            "/auth/assets/theme.css",
        ]
        theme = await came.browser.get(sheets[1])
        assert theme.text == ":root {\n  --accent: light-dark(#0b6e4f, #6fd6ae);\n  --radius: 0;\n}\n"
        assert theme.headers["cache-control"].endswith("immutable")
        assert (await came.sends("/auth/sign-up", SIGN_UP)).headers["location"] == "/orders"
        account = await came.asks("/auth/account")
        assert text(account).index("Orders") < text(account).index("Account")
        assert 'href="/orders"' in account.text


@pytest.mark.parametrize(
    "options",
    [
        {"theme": {"accent": "red; } body { display: none"}},
        {"theme": {"accent": "url(https://evil.example)"}},
        {"theme": {"accent": "URL('x')"}},
        {"theme": {"accent": " "}},
        {"theme": {"--accent": "red"}},
        {"theme": {"accent": "red /* x"}},
        {"logo": "https://cdn.example/logo.svg"},
        {"logo": "logo.svg"},
        {"landing_page": "//evil.example"},
        {"landing_page": "/\u0437\u0430"},
        {"links": [("Orders", "orders")]},
        {"templates": "no/such/folder"},
        {"locale": "no/such/folder"},
    ],
)
def test_what_could_not_be_shown(options: dict[str, Any]) -> None:
    """Refused where it is written, and not on the first visitor's page."""
    with pytest.raises(ConfigurationError):
        Pages(**options)


@ON_SQLITE
async def test_any_one_template_replaced(settings: Settings, clock: ManualClock, tmp_path: Path) -> None:
    """By its name in a folder; ours can be extended, and all others stay."""
    (tmp_path / "footer.html").write_text("<footer>Driftwood, since {{ 1990 + 9 }}</footer>")
    (tmp_path / "sign_in.html").write_text(
        '{% extends "latchstring/sign_in.html" %}{% block header %}<header>Ours, {{ site.name }}</header>{% endblock %}'
    )
    look = Pages(name="<i>", templates=tmp_path)
    async with Shop(settings, clock, pages=look).open() as came:
        page = await came.asks("/auth/sign-in")
        assert "<footer>Driftwood, since 1999</footer>" in page.text
        assert "<header>Ours, &lt;i&gt;</header>" in page.text
        assert 'action="/auth/sign-in"' in page.text
        other = await came.asks("/auth/sign-up")
        assert "<footer>Driftwood" in other.text
        assert "Ours" not in other.text


@ON_SQLITE
@pytest.mark.parametrize(("root", "stripped"), [("/shop", True), ("/shop", False), ("/auth", False)])
async def test_under_a_root_path(settings: Settings, clock: ManualClock, root: str, stripped: bool) -> None:  # noqa: FBT001
    """Every address is as the browser has to ask for it, whether the proxy takes the root path off or leaves it."""
    look = Pages(landing_page="/orders", logo="/l.svg", links=[("Orders", "/orders")])
    async with Shop(settings, clock, pages=look).open(root_path=root) as came:

        def asked(location: str) -> str:
            assert location.startswith(f"{root}/"), location
            return location.removeprefix(root) if stripped else location

        page = await came.asks(asked(f"{root}/auth/account"))
        assert page.headers["location"] == f"{root}/auth/sign-in?next=%2F{root[1:]}%2Fauth%2Faccount"
        page = await came.asks(asked(page.headers["location"]))
        assert page.status_code == 200
        for address in re.findall(r'(?:src|href|action)="([^"#]+)"', page.text):
            assert address.startswith(f"{root}/"), address
        answer = await came.sends(asked(f"{root}/auth/sign-up"), SIGN_UP)
        assert answer.headers["location"] == f"{root}/orders"
        assert (await came.asks(asked(f"{root}/orders"))).text == "Orders of Ada"
        account = await came.asks(asked(f"{root}/auth/account"))
        assert f'data-renewal-url="{root}/auth/refresh"' in account.text
        assert f'<a href="{root}/auth/account" aria-current="page"' in account.text
        clock.advance(minutes=16)
        renewal = await came.asks(asked(f"{root}/orders"))
        renewed = await came.asks(asked(renewal.headers["location"]))
        assert renewed.headers["location"] == f"{root}/orders"


@ON_SQLITE
async def test_a_feature_that_is_left_out_has_no_pages(settings: Settings, clock: ManualClock) -> None:
    """Nothing leads to what is not there, and what is there works."""
    async with Shop(settings, clock, features=[PasswordFeature()]).open() as came:
        answer = await came.sends_and_goes("/auth/sign-up", SIGN_UP)
        assert (answer.status_code, answer.url.path) == (200, "/auth/account/sessions")
        assert 'href="/auth/account"' not in answer.text
        assert (await came.asks("/auth/account")).status_code == 404
    async with Shop(settings, clock, features=[ProfileFeature()]).open() as came:
        answer = await came.asks("/auth/account")
        assert (answer.status_code, "location" in answer.headers) == (401, False)
        assert (await came.asks("/auth/signed-out")).status_code == 200
        assert "sign-in" not in (await came.asks("/auth/signed-out")).text
        assert (await came.asks("/.well-known/change-password")).status_code == 404


@ON_SQLITE
async def test_pages_at_a_place_of_their_own(settings: Settings, clock: ManualClock) -> None:
    """`pages_prefix`: the pages there, the JSON routes where they were."""
    app = FastAPI()
    auth = Auth.from_settings(settings, pages=True, clock=clock)
    with pytest.raises(ConfigurationError, match="must begin with a slash"):
        auth.install(app, prefix="/api/auth", pages_prefix="me")
    auth.install(app, prefix="/api/auth", pages_prefix="")
    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url=HOST) as browser:
            came = Visitor(browser)
            assert (await came.sends("/sign-up", SIGN_UP)).headers["location"] == "/account"
            assert (await browser.get("/api/auth/me")).status_code == 200
            assert 'data-renewal-url="/api/auth/refresh"' in (await came.asks("/account")).text
