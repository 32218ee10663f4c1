"""Into any application: what `Auth(…)` and `install` take, begin and leave alone."""

import asyncio
import contextlib
import gc
import logging
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urljoin

import httpx2
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette

from latchstring import (
    Auth,
    CallerDep,
    ConfigurationError,
    CurrentUser,
    OptionalUser,
    Settings,
    User,
    requires,
    users,
)
from latchstring.errors import DatabaseUnavailableError
from latchstring.migrations import VERSION_TABLE
from latchstring.testing import ManualClock
from tests.support.backends import ON_SQLITE
from tests.support.hang import until
from tests.support.host import Host, browser_for, host_app
from tests.support.postgres import Postgres
from tests.support.service import SECRET, cheap_settings, credentials, registration

CHEAP = Settings.model_validate(
    {"password_hash_memory_kib": 8, "password_hash_passes": 1, "limits": False, "jwt_algorithm": "ES256"}
)


@ON_SQLITE
async def test_ten_lines(empty_url: str) -> None:
    """The first page's application, on a database with nothing in it: nobody has to run anything beforehand."""
    app = FastAPI()
    auth = Auth(empty_url, secret=SECRET)
    auth.install(app, prefix="/auth")

    @app.get("/me")
    async def me(user: CurrentUser) -> str:
        return user.email

    async with app.router.lifespan_context(app), browser_for(app) as browser:
        assert (await browser.get("/me")).status_code == 401
        assert (await browser.post("/auth/register", json=registration())).status_code == 201
        assert (await browser.get("/me")).json() == "ada@example.com"
        assert (await browser.get("/.well-known/jwks.json")).status_code == 200


def test_no_environment_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of the server, and a `.env` beside it, say nothing to an application's own Auth."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("LATCHSTRING_PUBLIC_URL=https://elsewhere.example\n")
    monkeypatch.setenv("LATCHSTRING_ACCESS_TOKEN_EXPIRE_MINUTES", "1")
    monkeypatch.setenv("LATCHSTRING_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    monkeypatch.setenv("LATCHSTRING_SECRET", "another secret, which is long enough too")
    auth = Auth(f"sqlite:///{tmp_path}/app.db", secret=SECRET)
    assert auth.parts.settings == Settings(secret=SecretStr(SECRET))
    assert auth.parts.tools.database.url.database == f"{tmp_path}/app.db"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"database": "sqlite:///app.db"}, "secret"),
        ({"database": "sqlite:///app.db", "secret": "too short"}, "32 characters"),
        ({"database": "sqlite://", "secret": SECRET}, "a file"),
        ({"database": "mysql://localhost/app", "secret": SECRET}, "must begin with"),
        ({"database": sa.create_engine("sqlite:///app.db"), "secret": SECRET}, "AsyncEngine"),
        ({"database": "sqlite:///a.db", "secret": SECRET, "settings": cheap_settings("sqlite:///b.db")}, "twice"),
        ({"database": "sqlite:///a.db", "secret": SECRET, "settings": Settings(secret=SecretStr(SECRET))}, "twice"),
    ],
    ids=["no secret", "short", "memory", "mysql", "sync engine", "two databases", "two secrets"],
)
def test_what_cant_be_used_is_refused_in_words(arguments: dict[str, Any], words: str) -> None:
    """Where it is written, and not at the first request; the words hold no value."""
    with pytest.raises(ConfigurationError, match=words) as refused:
        Auth(**arguments)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("prefix", ["auth", "/auth/"])
def test_a_prefix_is_a_path(prefix: str, tmp_path: Path) -> None:
    """Said at once, and not by a 404 later."""
    with pytest.raises(ConfigurationError, match="slash"):
        Auth(f"sqlite:///{tmp_path}/app.db", secret=SECRET).install(FastAPI(), prefix=prefix)


@ON_SQLITE
async def test_nothing_else_of_the_host_is_touched(settings: Settings) -> None:
    """Exception handlers, middleware, logging, the event loop and its policy, warnings: as they were."""
    app = FastAPI(openapi_tags=[{"name": "theirs"}])
    app.add_middleware(CORSMiddleware, allow_origins=["https://theirs.example"])
    app.add_exception_handler(HTTPException, lambda _request, _error: None)  # type: ignore[arg-type]  # never called

    def state() -> list[object]:
        return [
            dict(app.exception_handlers),
            list(app.user_middleware),
            app.dependency_overrides,
            list(logging.getLogger().handlers),
            logging.getLogger().level,
            asyncio.get_running_loop().get_exception_handler(),
            type(asyncio.get_event_loop_policy()),
            sorted(app.state._state.keys() - {"latchstring"}),
        ]

    before = state()
    auth = Auth.from_settings(settings)
    auth.install(app)
    async with app.router.lifespan_context(app):
        assert state() == before
    assert state() == before


@ON_SQLITE
async def test_the_hosts_lifespan_runs_within_ours(empty_url: str) -> None:
    """Its startup finds the schema there; what it yields is the requests' state; its end comes before ours."""
    seen: list[object] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        seen.append(await auth.users.find_by_email("ada@example.com"))
        yield {"colour": "green"}
        seen.append(len(await auth.users.list()))

    app = FastAPI(lifespan=lifespan)
    auth = Auth(empty_url, secret=SECRET, settings=CHEAP)
    auth.install(app)

    @app.get("/colour")
    async def colour(request: Request, _caller: CallerDep) -> str:
        return str(request.state.colour)

    def visit() -> None:
        # Twice, as tests do with an application that they import: a second start is a start.
        for expected in (201, 409):
            with TestClient(app) as client:
                assert client.post("/auth/register", json=registration()).status_code == expected
                client.post("/auth/login", json=credentials())
                assert client.get("/colour").json() == "green"

    await asyncio.to_thread(visit)
    assert [seen[0], seen[1], seen[3]] == [None, 1, 1]


@ON_SQLITE
async def test_mounted_applications(settings: Settings, clock: ManualClock) -> None:
    """One that is attached asks the Auth of the application it is mounted in; one that is not lets nobody in."""
    host = Host(settings, clock)
    attached, forgotten = host_app(), host_app()
    host.app.mount("/attached", attached)
    host.app.mount("/forgotten", forgotten)
    host.auth.attach(attached)
    with pytest.raises(ConfigurationError, match="already"):
        host.auth.attach(attached)
    async with host.auth.running():
        ada = await host.signed_in()
        assert (await ada.get("/attached/profile")).json() == {"email": "ada@example.com"}
        assert (await host.browser().get("/attached/profile")).status_code == 401
        assert (await ada.get("/forgotten/profile")).status_code == 500


@ON_SQLITE
async def test_dependencies_that_know_their_auth(settings: Settings, clock: ManualClock) -> None:
    """Where an alias can't know which Auth is meant, `auth.current_user` and its like do; here, without any state."""
    auth = Auth.from_settings(settings, clock=clock)
    home, elsewhere = FastAPI(), FastAPI()
    auth.install(home)

    @elsewhere.get("/user")
    async def user(user: Annotated[User, Depends(auth.current_user)]) -> str:
        return user.email

    @elsewhere.get("/visitor")
    async def visitor(user: Annotated[User | None, Depends(auth.optional_user)]) -> str | None:
        return user.email if user else None

    guards: dict[str, Callable[..., Any]] = {
        "/caller": auth.current_caller,
        "/fresh": auth.fresh(minutes=5),
        "/role": auth.requires(role="admin"),
    }
    for path, guard in guards.items():
        elsewhere.get(path, dependencies=[Depends(guard)])(lambda: "in")
    async with auth.running(), browser_for(home) as at_home, browser_for(elsewhere) as browser:
        assert (await browser.get("/visitor")).json() is None
        assert [(await browser.get(path)).status_code for path in ("/user", *guards)] == [401] * 4
        await at_home.post("/auth/register", json=registration())
        browser.cookies = at_home.cookies
        assert [(await browser.get(path)).json() for path in ("/user", "/visitor")] == ["ada@example.com"] * 2
        assert [(await browser.get(path)).status_code for path in guards] == [200, 200, 403]


@ON_SQLITE
async def test_an_auth_below_a_mount_begins_by_itself(empty_url: str) -> None:
    """Where no lifespan runs, the first request that needs it begins it: schema, keys and the feed."""
    inner, outer = host_app(), FastAPI()
    auth = Auth(empty_url, secret=SECRET, settings=CHEAP)
    auth.install(inner)
    outer.mount("/inner", inner)
    try:
        async with browser_for(outer) as browser:
            assert (await browser.post("/inner/auth/register", json=registration())).status_code == 201
            assert (await browser.get("/inner/profile")).json() == {"email": "ada@example.com"}
            assert auth.parts.background.is_begun
        again = Auth(empty_url, secret=SECRET, settings=CHEAP)
        other = host_app()
        again.install(other)
        async with browser_for(other) as stranger:
            # A guarded route is as good as one of ours; thirty at once begin it once.
            stranger.cookies = browser.cookies
            answers = await asyncio.gather(*(stranger.get("/profile") for _ in range(30)))
            assert {answer.status_code for answer in answers} == {200}
        await again.close()
    finally:
        await auth.close()


@ON_SQLITE
async def test_what_cant_begin_lets_nobody_in(settings: Settings, tmp_path: Path) -> None:
    """503 while the database is away, for guests and for whoever has a good token; and a start is refused."""
    async with contextlib.AsyncExitStack() as stack:
        host = Host(settings, ManualClock())
        await stack.enter_async_context(host.auth.running())
        tokens = (await host.signed_in()).cookies
    away = host_app()
    auth = Auth(f"sqlite:///{tmp_path}/no/such/folder.db", secret=SECRET)
    auth.install(away)
    async with browser_for(away, Authorization=f"Bearer {tokens['access_token']}") as browser:
        for path in ("/reports", "/profile"):
            answer = await browser.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        answer = await browser.post("/auth/login", json=credentials())
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    await auth.close()


@ON_SQLITE
async def test_of_many_who_cant_begin_one_tries(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the database hangs, nobody waits for those before; the next request tries again."""
    app = host_app()
    auth = Auth.from_settings(settings)
    auth.install(app)
    tries, hangs = 0, asyncio.Event()

    async def hang() -> None:
        nonlocal tries
        tries += 1
        await hangs.wait()
        raise DatabaseUnavailableError("the database is away")

    monkeypatch.setattr(auth.parts.keys, "prepare", hang)
    async with browser_for(app) as browser:
        requests = [asyncio.create_task(browser.get("/auth/me")) for _ in range(20)]
        requests += [asyncio.create_task(browser.post("/auth/login", json=credentials())) for _ in range(20)]
        await until(lambda: tries)
        gives_up = requests.pop()
        gives_up.cancel()
        hangs.set()
        await asyncio.gather(*requests)
        assert tries == 1
        monkeypatch.undo()
        assert (await browser.post("/auth/register", json=registration())).status_code == 201
    await auth.close()


@pytest.mark.parametrize("driver", ["sqlite", "postgresql+psycopg", "postgresql+asyncpg"])
def test_each_request_in_a_loop_of_its_own(
    driver: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A test client without its `with` gives each request another event loop; what begins in one begins in the next."""
    postgres: Postgres | None = None if driver == "sqlite" else request.getfixturevalue("postgres")
    url = postgres.create_database() if postgres else f"sqlite:///{tmp_path}/app.db"
    # A connection of a loop that is gone can't be closed any more, and says so when it is forgotten.
    monkeypatch.setattr(sys, "unraisablehook", lambda _unraisable: None)
    _each_request_in_a_loop_of_its_own(url.replace("postgresql:", f"{driver}:"))
    gc.collect()
    assert "asynchronous generator" not in caplog.text
    if postgres:
        postgres.drop_database(url)


def _each_request_in_a_loop_of_its_own(url: str) -> None:
    app = host_app()
    Auth(url, secret=SECRET, settings=CHEAP).install(app)
    client = TestClient(app)
    assert client.post("/auth/register", json=registration()).status_code == 201
    for _ in range(3):
        assert client.get("/profile").json() == {"email": "ada@example.com"}
    assert client.post("/auth/logout").status_code == 200
    assert client.get("/profile").status_code == 401


def test_one_auth_in_one_loop_after_the_other(tmp_path: Path) -> None:
    """Writers that queue in one event loop leave nothing behind on which those in the next one would break."""
    app = host_app()
    Auth(f"sqlite:///{tmp_path}/app.db", secret=SECRET, settings=CHEAP).install(app)

    async def register(number: int) -> int:
        async with browser_for(app) as browser:
            return (await browser.post("/auth/register", json=registration(f"ada{number}@example.com"))).status_code

    async def all_at_once(first: int) -> set[int]:
        return set(await asyncio.gather(*(register(first + number) for number in range(10))))

    for first in (0, 10, 20):
        with TestClient(app) as client:
            assert client.portal is not None
            assert client.portal.call(all_at_once, first) == {201}


def test_a_guard_on_the_whole_application_is_refused(tmp_path: Path) -> None:
    """It would stand before the way in as well: nobody could sign in."""
    app = FastAPI(dependencies=[Depends(requires(role="admin"))])
    with pytest.raises(ConfigurationError, match="routers"):
        Auth(f"sqlite:///{tmp_path}/app.db", secret=SECRET).install(app)


@pytest.mark.parametrize("root", ["/", "/a", "/auth", "/au"])
async def test_a_root_path_is_a_part_of_the_path(root: str, tmp_path: Path) -> None:
    """And not the beginning of a word in it."""
    app = host_app()
    auth = Auth(f"sqlite:///{tmp_path}/app.db", secret=SECRET, settings=CHEAP)
    auth.install(app)
    transport = httpx2.ASGITransport(app, root_path=root)
    async with auth.running(), httpx2.AsyncClient(transport=transport, base_url="http://localhost") as browser:
        for prefix in ("", root.rstrip("/")):
            expected = 404 if (root, prefix) == ("/auth", "") else 403
            assert (await browser.post(f"{prefix}/auth/refresh")).status_code == expected


async def test_without_tables_nobody_gets_in(empty_url: str) -> None:
    """With `migrate=False` on a database with nothing in it: 503, until somebody migrates, and then no longer."""
    app = host_app()
    auth = Auth(empty_url, secret=SECRET, settings=CHEAP, migrate=False)
    auth.install(app)
    async with app.router.lifespan_context(app), browser_for(app) as browser:
        answer = await browser.post("/auth/register", json=registration())
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        await auth.prepare()
        await auth.parts.core.feed.poll()
        assert (await browser.post("/auth/register", json=registration())).status_code == 201


@ON_SQLITE
@pytest.mark.parametrize("url", ["/api/v1", ""], ids=["behind a proxy", "at the root"])
async def test_under_a_root_path(url: str, settings: Settings, clock: ManualClock) -> None:
    """A proxy that takes a part of the path away changes no route of ours, and the metadata says where they are."""
    public = Settings.model_validate(settings.model_dump() | {"public_url": "https://app.example.com"})
    app = FastAPI(openapi_url="/docs/openapi.json")
    auth = Auth.from_settings(public, clock=clock)
    auth.install(app, prefix="/sign-in")

    @app.get("/me")
    async def me(user: OptionalUser) -> str | None:
        return user.email if user else None

    transport = httpx2.ASGITransport(app, root_path=url)
    browser = httpx2.AsyncClient(transport=transport, base_url="https://app.example.com")
    async with auth.running(), browser:
        assert (await browser.post("/sign-in/register", json=registration())).status_code == 201
        assert (await browser.get("/me")).json() == "ada@example.com"
        told = (await browser.get("/.well-known/openid-configuration")).json()
        assert told["jwks_uri"] == f"https://app.example.com{url}/.well-known/jwks.json"
        assert told["token_endpoint"] == f"https://app.example.com{url}/sign-in/token"
        document = (await browser.get("/docs/openapi.json")).json()
        token_url = document["components"]["securitySchemes"]["signIn"]["flows"]["password"]["tokenUrl"]
        # OpenAPI 3.1, section 4.6: relative to the document.
        assert urljoin(f"https://app.example.com{url}/docs/openapi.json", token_url) == told["token_endpoint"]


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
@pytest.mark.parametrize("backend", ["postgresql"])
async def test_the_hosts_engine_with_a_pool_of_one(driver: str, database_url: str) -> None:
    """No guard holds a connection while the route runs: the route takes the only one there is."""
    url = database_url.replace("postgresql:", f"postgresql+{driver}:")
    # With a default of its own, which ours must neither take over nor change.
    engine = create_async_engine(
        url, pool_size=1, max_overflow=0, isolation_level="REPEATABLE READ", hide_parameters=True
    )
    app = FastAPI()
    auth = Auth(engine, secret=SECRET, settings=CHEAP, migrate=False)
    auth.install(app)

    @app.get("/count")
    async def count(_user: CurrentUser, _caller: CallerDep, _visitor: OptionalUser) -> int:
        async with engine.connect() as connection:
            isolation = await connection.scalar(sa.text("SHOW transaction_isolation"))
            assert isolation == "repeatable read"
            return await connection.scalar(sa.select(sa.func.count()).select_from(users)) or 0

    async with app.router.lifespan_context(app), browser_for(app) as browser:
        await browser.post("/auth/register", json=registration())
        answers = await asyncio.gather(*(browser.get("/count") for _ in range(20)))
        assert [answer.json() for answer in answers] == [1] * 20
    # What was lent is given back, and not closed.
    async with engine.connect() as connection:
        assert await connection.scalar(sa.text("SELECT 1")) == 1
    await engine.dispose()


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_the_hosts_engine_on_sqlite(database_url: str) -> None:
    """It lends its file; what our connections are told, its own are not."""
    engine = create_async_engine(database_url.replace("sqlite:", "sqlite+aiosqlite:"))
    app = FastAPI()
    auth = Auth(engine, secret=SECRET, settings=CHEAP)
    auth.install(app)

    @app.get("/count")
    async def count(_user: CurrentUser) -> int:
        async with engine.connect() as connection:
            assert await connection.scalar(sa.text("PRAGMA foreign_keys")) == 0
            ours: Any = auth.parts.tools.database.engine.pool
            assert ours.checkedout() == 0
            return await connection.scalar(sa.select(sa.func.count()).select_from(users)) or 0

    async with app.router.lifespan_context(app), browser_for(app) as browser:
        await browser.post("/auth/register", json=registration())
        assert (await browser.get("/count")).json() == 1
    await engine.dispose()


_HOSTS_ENV = """
import warnings
from alembic import context
from sqlalchemy import NullPool, create_engine
from models import metadata
from latchstring import alembic_include_name

# Alembic reads every table before it asks which are meant, and SQLAlchemy does not know this type of PostgreSQL's.
warnings.filterwarnings("ignore", "Did not recognize type 'xid8'")

engine = create_engine(context.config.get_main_option("sqlalchemy.url"), poolclass=NullPool)
with engine.connect() as connection:
    context.configure(
        connection=connection, target_metadata=metadata, include_name=alembic_include_name, render_as_batch=True
    )
    with context.begin_transaction():
        context.run_migrations()
"""
_HOSTS_MODELS = """
import sqlalchemy as sa
from latchstring import users

metadata = sa.MetaData()
profiles = sa.Table(
    "profiles",
    metadata,
    sa.Column("user_id", sa.Uuid(), sa.ForeignKey(users.c.id, ondelete="CASCADE", name="fk_user"), primary_key=True),
    sa.Column("city", sa.String(80)),
)
"""
_HOSTS_TEMPLATE = '''
"""${message}"""
import sqlalchemy as sa
from alembic import op
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}

def upgrade():
    ${upgrades if upgrades else "pass"}

def downgrade():
    ${downgrades if downgrades else "pass"}
'''


async def test_the_hosts_own_alembic_beside_ours(
    empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One database, two histories: autogenerate leaves our tables alone, and neither run touches the other's."""
    scripts = tmp_path / "host"
    (scripts / "versions").mkdir(parents=True)
    (scripts / "env.py").write_text(_HOSTS_ENV)
    (scripts / "script.py.mako").write_text(_HOSTS_TEMPLATE)
    (scripts / "models.py").write_text(_HOSTS_MODELS)
    monkeypatch.syspath_prepend(str(scripts))
    config = Config()
    config.set_main_option("script_location", str(scripts))
    config.set_main_option("path_separator", "os")
    config.set_main_option("sqlalchemy.url", empty_url.replace("+aiosqlite", "").replace("%", "%%"))
    auth = Auth(empty_url, secret=SECRET, settings=CHEAP)
    await auth.prepare()

    async def tables() -> set[str]:
        async with auth.parts.tools.database.reading() as connection:
            return set(await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names()))

    ours = await tables()
    assert VERSION_TABLE in ours
    await asyncio.to_thread(command.revision, config, "theirs", autogenerate=True)
    (written,) = (scripts / "versions").glob("*.py")
    assert "profiles" in written.read_text()
    assert "drop" not in written.read_text().partition("def downgrade")[0]
    assert "op.create_table('latchstring" not in written.read_text()
    await asyncio.to_thread(command.upgrade, config, "head")
    assert await tables() == ours | {"profiles", "alembic_version"}
    await auth.prepare()
    assert "schema_drift" not in {finding.name for finding in (await auth.audit(Starlette())).findings}
    await asyncio.to_thread(command.downgrade, config, "base")
    assert await tables() == ours | {"alembic_version"}
    await auth.close()
