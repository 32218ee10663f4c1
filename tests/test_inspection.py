"""`auth.audit` and `latchstring doctor APP`: what lets anybody in without anybody having said so."""

import base64
import contextlib
import functools
import importlib.util
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Security, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.security import OAuth2PasswordBearer
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router
from starlette.staticfiles import StaticFiles

from latchstring import (
    Access,
    Auth,
    Caller,
    CallerDep,
    Core,
    CurrentUser,
    FeatureParts,
    GuardMiddleware,
    OptionalUser,
    Settings,
    Tools,
    current_user,
    fresh,
    guarding,
    public,
    requires,
)
from latchstring.apps.cli.output import Exit
from latchstring.apps.server import build_app
from tests.support.backends import ON_SQLITE
from tests.support.forge import PrivateKey, private_pem
from tests.support.process import latchstring
from tests.support.service import cheap_settings

PUBLIC_URL = "https://app.example.com"


@pytest.fixture
async def auth(database_url: str) -> AsyncIterator[Auth]:
    """With nothing to complain of."""
    auth = Auth.from_settings(cheap_settings(database_url, public_url=PUBLIC_URL))
    yield auth
    await auth.close()


def small_app(auth: Auth) -> FastAPI:
    """An application of which everything is declared."""
    app = FastAPI()
    auth.install(app)

    @app.get("/me")
    async def me(user: CurrentUser) -> str:
        return user.email

    return app


@ON_SQLITE
async def test_every_kind_of_route_is_listed(auth: Auth, tmp_path: Path) -> None:  # noqa: C901, PLR0915 -- one route of each kind
    """Guarded, public or undeclared: below routers, mounts and hosts, HTTP and WebSocket, by every dependency."""
    app = small_app(auth)
    router, nested = APIRouter(prefix="/router", dependencies=[Depends(requires(role="admin"))]), APIRouter()

    @guarding
    def require_key(x_api_key: Annotated[str, Header()]) -> None:
        if x_api_key != "…":
            raise HTTPException(403)

    def deeper(caller: CallerDep) -> Caller:
        return caller

    @nested.get("/nested")
    async def by_the_router() -> None: ...

    router.include_router(nested, prefix="/inner")
    app.include_router(router)
    app.include_router(nested, prefix="/open")

    @app.get("/fresh", dependencies=[Depends(fresh(minutes=5))])
    def by_the_decorator() -> None: ...

    @app.get("/deeper")
    def by_a_dependency_of_a_dependency(caller: Annotated[Caller, Depends(deeper)]) -> None: ...

    @app.get("/bound")
    def by_a_bound_one(caller: Annotated[Caller, Depends(auth.current_caller)]) -> None: ...

    @app.get("/key", dependencies=[Depends(require_key)])
    def by_the_hosts_own() -> None: ...

    @app.get("/token")
    def by_what_only_reads_a_header(token: Annotated[str, Depends(OAuth2PasswordBearer("token"))]) -> None: ...

    @app.get("/optional")
    def open_to_visitors(user: OptionalUser) -> None: ...

    @app.post("/declared")
    @public
    def declared() -> None: ...

    @app.websocket("/guarded-socket")
    async def guarded_socket(socket: WebSocket, caller: CallerDep) -> None: ...

    @app.websocket("/open-socket")
    async def open_socket(socket: WebSocket) -> None: ...

    plain = Starlette(routes=[Route("/plain", PlainTextResponse("hello"))])
    app.mount("/starlette", plain)
    app.mount("/router-app", Router([Route("/below", PlainTextResponse("hello"))]))
    app.mount("/files", StaticFiles(directory=tmp_path))
    app.mount("/protected", auth.protect(StaticFiles(directory=tmp_path)))
    app.router.routes.append(
        Host("api.example.com", Router([Mount("/v1", routes=[Route("/x", PlainTextResponse(""))])]))
    )
    (tmp_path / "index.html").touch()
    app.frontend("/pages", directory=tmp_path)
    guarded_pages = APIRouter(prefix="/own", dependencies=[Depends(auth.current_caller)])
    guarded_pages.frontend("/pages", directory=tmp_path)
    app.include_router(guarded_pages)
    around = Starlette(routes=[Route("/x", PlainTextResponse(""))])
    around.add_middleware(GuardMiddleware, guard=auth.guard)
    app.mount("/around", around)
    inspection = await auth.audit(app)
    access = {route.path: route.access for route in inspection.routes}
    assert len(access) < len(inspection.routes), "two methods of one path are two lines"
    guarded = {path for path, how in access.items() if how is Access.GUARDED}
    undeclared = {path for path, how in access.items() if how is Access.UNDECLARED}
    assert guarded == {
        *("/me", "/auth/me", "/auth/confirm", "/auth/password/change", "/auth/sessions", "/auth/sessions/{session_id}"),
        *("/auth/revocations", "/router/inner/nested", "/fresh", "/deeper", "/bound", "/key", "/guarded-socket"),
        *("/protected/*", "/own/pages/*", "/around/*"),
    }
    assert undeclared == {
        *("/token", "/open/nested", "/open-socket", "/starlette/plain", "/router-app/below", "/files/*", "/v1/x"),
        "/pages/*",
    }
    assert {"/optional", "/declared", "/docs", "/auth/login"} <= access.keys() - guarded - undeclared
    assert {finding.name for finding in inspection.findings} == {"undeclared_route"}
    assert len(inspection.findings) == len(undeclared)
    assert not inspection.ok
    for path in undeclared:
        assert path in str(inspection)
    named = await auth.audit(
        app, public=["/token", "/open/*", "/open-socket", "/starlette/*", "/router-app*", "/files/*", "/pages/*"]
    )
    assert [finding.words for finding in named.findings] == ["/v1/x is neither guarded nor declared public"]


async def test_nothing_to_find(auth: Auth) -> None:
    """An application that declares what it lets in, on https, with keys of ours, is in order; so is our own server."""
    assert (await auth.audit(small_app(auth))).ok
    server = build_app(auth.parts.settings)
    own: Auth = server.state.latchstring
    assert (await own.audit(server, public=["/openapi.json"])).ok
    await own.close()


@ON_SQLITE
async def test_what_looks_guarded_and_is_not(auth: Auth) -> None:
    """An override that a test left behind, what wraps a guard of the host's, and a feature's own open route."""

    class Secrets:
        def build(self, tools: Tools, _core: Core) -> FeatureParts:
            router: APIRouter = tools.web.router()

            @router.get("/secrets")
            async def secrets() -> str:
                return "all of them"

            return FeatureParts(name="secrets", router=router)

    @guarding
    def require_key(x_api_key: Annotated[str | None, Header()] = None) -> None:
        if x_api_key != "…":
            raise HTTPException(403)

    @functools.wraps(require_key)
    def optional_key(x_api_key: Annotated[str | None, Header()] = None) -> None:
        with contextlib.suppress(HTTPException):
            require_key(x_api_key)

    app = FastAPI()
    own = Auth.from_settings(auth.parts.settings, features=[Secrets()])
    own.install(app)
    app.get("/key", dependencies=[Depends(optional_key)])(lambda: "in")
    app.get("/me", dependencies=[Depends(current_user)])(lambda: "in")
    app.get("/scopes", dependencies=[Security(current_user, scopes=["admin", "editor"])])(lambda: "in")
    app.dependency_overrides[current_user] = lambda: None
    findings = {finding.words for finding in (await own.audit(app)).findings}
    assert findings == {
        "GET /auth/secrets is neither guarded nor declared public",
        "GET /key is neither guarded nor declared public",
        "dependency_overrides of the application replaces CurrentUser: remove it",
        "/scopes asks for admin editor, but guards ignore scopes: use requires(role=…)",
    }
    one_path = await own.audit(app, public="/key*")
    assert {route.path for route in one_path.routes if route.why.startswith("named")} == {"/key"}
    await own.close()


def wide_open(app: Any) -> CORSMiddleware:  # noqa: ANN401 -- any ASGI application
    return CORSMiddleware(app, allow_origins=["*"], allow_credentials=True)


@pytest.mark.parametrize("where", ["host", "router", "around", "mount middleware", "partial"])
@pytest.mark.parametrize("backend", ["sqlite"])
async def test_cors_wherever_it_stands(where: str, auth: Auth) -> None:
    """Below hosts and routers, around what is mounted, and given its arguments beforehand."""
    options: dict[str, Any] = {"allow_origins": ["*"], "allow_credentials": True}
    app, inner = small_app(auth), FastAPI(openapi_url=None)
    if where in {"host", "router", "partial"}:
        inner.add_middleware(functools.partial(CORSMiddleware, **options))
    if where == "host":
        app.router.routes.append(Host("api.example.com", inner))
    elif where == "router":
        app.mount("/r", Router([Mount("/inner", inner)]))
    elif where == "around":
        app.mount("/a", wide_open(inner))
    elif where == "partial":
        app.mount("/p", inner)
    else:
        app.router.routes.append(Mount("/m", inner, middleware=[Middleware(CORSMiddleware, **options)]))
    assert [finding.name for finding in (await auth.audit(app)).findings] == ["wildcard_cors"]


@ON_SQLITE
async def test_what_stands_around_itself(auth: Auth) -> None:
    """Something that is mounted may have under `app` what belongs to it, and that may have it again."""

    class Gateway:
        def __init__(self, owner: object) -> None:
            self.app = owner

    app = FastAPI()
    auth.install(app)
    outer = Gateway(None)
    outer.app = Gateway(outer)
    app.mount("/loop", outer)  # type: ignore[arg-type]  # looked at, and never called
    inspection = await auth.audit(app)
    assert [finding.words for finding in inspection.findings] == ["/loop/* is neither guarded nor declared public"]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"allow_origins": ["*"], "allow_credentials": True}, ["wildcard_cors"]),
        ({"allow_origin_regex": ".*", "allow_credentials": True}, ["wildcard_cors"]),
        ({"allow_origin_regex": r"https://.*\.example", "allow_credentials": True}, ["wildcard_cors"]),
        ({"allow_origins": ["*"]}, []),
        ({"allow_origins": ["https://app.example.com"], "allow_credentials": True}, []),
        ({"allow_origin_regex": r"https://[a-z]+\.example\.com", "allow_credentials": True}, []),
    ],
)
@pytest.mark.parametrize("backend", ["sqlite"])
async def test_cors_for_everybody_with_credentials(options: dict[str, Any], names: list[str], auth: Auth) -> None:
    """Any site could read what only the visitor may (CVE-2024-25124); also of an application that is mounted."""
    app, outer = small_app(auth), FastAPI()
    app.add_middleware(CORSMiddleware, **options)
    outer.mount("/app", app)
    for looked_at in (app, outer):
        assert [finding.name for finding in (await auth.audit(looked_at)).findings] == names


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_cookies_that_travel_in_the_clear(settings: Settings, auth: Auth) -> None:
    """Ours without an https public URL, and Starlette's sessions without `https_only`."""
    plain = Auth.from_settings(settings)
    (finding,) = (await plain.audit(small_app(plain))).findings
    assert finding.name == "insecure_cookies"
    for https_only, names in ((True, []), (False, ["insecure_cookies"])):
        app = FastAPI()
        app.add_middleware(SessionMiddleware, secret_key="…", https_only=https_only)
        assert [finding.name for finding in (await auth.audit(app)).findings] == names
    await plain.close()


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_weak_secrets_and_keys(database_url: str) -> None:
    """A secret that repeats itself, and an RSA key of 2,048 bits, which is accepted and should not stay."""
    good = {"jwt_private_key": base64_pem(ec.generate_private_key(ec.SECP256R1())), "jwt_algorithm": "ES256"}
    short = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    rows: list[tuple[dict[str, str], list[str]]] = [
        (good, []),
        (good | {"secret": "changeme" * 5}, ["weak_secret"]),
        ({"jwt_private_key": base64_pem(short)}, ["weak_key"]),
    ]
    for changes, names in rows:
        auth = Auth.from_settings(cheap_settings(database_url, public_url=PUBLIC_URL, **changes))
        assert [finding.name for finding in (await auth.audit(small_app(auth))).findings] == names
        await auth.close()


def base64_pem(key: PrivateKey) -> str:
    return base64.b64encode(private_pem(key)).decode()


async def test_a_schema_that_drifted(auth: Auth) -> None:
    """A column or an index of ours that somebody changed by hand, and a revision that is not the newest."""
    app = small_app(auth)
    async with auth.parts.tools.database.engine.begin() as connection:
        await connection.execute(sa.text("DROP INDEX ix_latchstring_sessions_living"))
        await connection.execute(sa.text("ALTER TABLE latchstring_users ADD COLUMN nickname VARCHAR(20)"))
        await connection.execute(sa.text("CREATE TABLE theirs (id INTEGER PRIMARY KEY)"))
    words = [finding.words for finding in (await auth.audit(app)).findings if finding.name == "schema_drift"]
    assert len(words) == 2
    assert any("nickname" in each for each in words)
    assert any("ix_latchstring_sessions_living" in each for each in words)
    async with auth.parts.tools.database.engine.begin() as connection:
        await connection.execute(sa.text("UPDATE latchstring_schema_version SET version_num = '0001'"))
    (finding,) = (await auth.audit(app)).findings
    assert "latchstring migrate" in finding.words


# --- doctor ----------------------------------------------------------------------------------------------------------

TUTORIAL = """
from typing import Annotated
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from latchstring import Auth

app = FastAPI()
auth = Auth("sqlite+aiosqlite:///app.db", secret="0123456789abcdefghijklmnopqrstuvwxyz")
auth.install(app, prefix="/api/auth")

# The tutorial's own: whatever is wrong with a token, it returns None, and the route runs.
def require_user(request: Request):
    try:
        return {"token": request.cookies["access_token"]}
    except Exception as error:
        return None

dashboard_router = APIRouter(prefix="/api/dashboard", tags=["Dashboard"])

@dashboard_router.get("/dashboard")
def dashboard(user_id: Annotated[str, Depends(require_user)]):
    return {"message": "Hello from the dashboard!"}

app.include_router(dashboard_router)

def create_app():
    return app
"""


@pytest.mark.parametrize("how", ["main:app", "main", "main:create_app"])
def test_the_tutorials_dashboard_is_caught(how: str, tmp_path: Path) -> None:
    """Its guard guards nothing: the command names the route, and fails the build."""
    (tmp_path / "main.py").write_text(TUTORIAL)
    assert latchstring("--app", how, "migrate", cwd=tmp_path).returncode == Exit.DONE
    done = latchstring("doctor", how, "--development", cwd=tmp_path)
    assert done.returncode == Exit.FAILED
    assert "undeclared GET     /api/dashboard/dashboard  (dashboard)" in done.stdout
    assert re.search(r"^failure  undeclared_route: GET /api/dashboard/dashboard is neither", done.stdout, re.MULTILINE)
    assert re.search(r"^warning  insecure_cookies", done.stdout, re.MULTILINE)
    done = latchstring("doctor", how, "--public", "/api/dashboard/*", cwd=tmp_path)
    assert (done.returncode, "undeclared" in done.stdout) == (Exit.FAILED, False)
    done = latchstring("doctor", how, "--public", "/api/dashboard/*", "--development", "--json", cwd=tmp_path)
    assert done.returncode == Exit.DONE, done.stderr
    assert '"access": "public"' in done.stdout


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("nowhere:app", Exit.USAGE, "can't be imported"),
        ("", Exit.USAGE, "can't be imported"),
        (":app", Exit.USAGE, "can't be imported"),
        ("./main.py", Exit.USAGE, "can't be imported"),
        ("main:nothing", Exit.USAGE, "is neither a FastAPI application nor a factory"),
        ("main:require_user", Exit.USAGE, "is neither a FastAPI application nor a factory"),
        ("bare:app", Exit.FAILED, "no Auth is installed"),
        ("weak:app", Exit.CONFIGURATION, "32 characters"),
    ],
)
def test_what_is_no_application(name: str, code: Exit, words: str, tmp_path: Path) -> None:
    """Said in words, with the exit code of its kind."""
    (tmp_path / "main.py").write_text(TUTORIAL)
    (tmp_path / "bare.py").write_text("from fastapi import FastAPI\napp = FastAPI()\n")
    (tmp_path / "weak.py").write_text('from latchstring import Auth\nauth = Auth("sqlite:///app.db", secret="weak")\n')
    done = latchstring("doctor", name, cwd=tmp_path)
    assert (done.returncode, words in done.stderr, "Traceback" in done.stderr) == (code, True, False), done.stderr


def test_what_speaks_of_an_application_needs_one(tmp_path: Path) -> None:
    """The server's own check has no routes to declare: whoever forgot the name hears so."""
    for option in (("--development",), ("--public", "/static/*")):
        done = latchstring("doctor", *option, cwd=tmp_path)
        assert (done.returncode, "MODULE:NAME" in done.stderr) == (Exit.USAGE, True)


def test_commands_on_an_application(tmp_path: Path) -> None:
    """`--app` means the application's own database and keys, and its subscribers hear of it."""
    heard = """
from latchstring import UserRegistered

@auth.after(UserRegistered)
async def hear(event):
    print("heard of", event.email, event.source.actor)
"""
    (tmp_path / "main.py").write_text(TUTORIAL + heard)

    def run(*arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return latchstring("--app", "main:app", *arguments, cwd=tmp_path, stdin=stdin)

    assert run("users", "list").returncode == Exit.FAILED
    assert run("migrate").returncode == Exit.DONE
    names = ("--first-name", "Ada", "--last-name", "Lovelace", "--password-stdin")
    done = run("users", "create", "ada@example.com", *names, stdin="correct horse battery")
    assert done.returncode == Exit.DONE, done.stderr
    assert "heard of ada@example.com operator" in done.stdout
    assert "editor" in run("users", "grant", "ada@example.com", "editor").stdout
    assert "editor" not in run("users", "withdraw", "ada@example.com", "editor").stdout
    assert run("users", "grant", "ada@example.com", "not a role").returncode == Exit.USAGE
    assert run("users", "grant", "bob@example.com", "editor").returncode == Exit.NOT_FOUND
    assert "RS256" in run("keys", "list").stdout
    assert "/api/dashboard/dashboard" in run("openapi").stdout
    for command in ("serve", "config"):
        assert run(command).returncode == Exit.USAGE
    assert not (tmp_path / "latchstring-data").exists()
    assert importlib.util.find_spec("main") is None, "the application was imported in the command's process alone"
