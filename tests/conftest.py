"""What every test may ask for.

backend        sqlite, then postgresql: a test that asks for anything below runs on both
database_url   a database of its own, with schema and keys
curve_url      the same with a key for ES256, which signs and verifies, and has successors, in no time
empty_url      another, with nothing in it
settings       the settings for it, with password hashes that cost next to nothing
clock          the time, which stands still until it is turned
service        one worker, running
shared         one worker on SQLite for all tests of a module: for what changes neither its clock nor its keys

What is decided before any statement of SQL is asked on SQLite alone.
"""

import asyncio
import contextlib
import gc
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest

from latchstring import Settings
from latchstring.apps.server import prepare
from latchstring.testing import ManualClock
from tests.support.folders import fast_folder
from tests.support.hang import OUTAGES, patience
from tests.support.postgres import Postgres, server_for_tests
from tests.support.process import end_forks
from tests.support.service import Service, cheap_settings, running_service

# Hypothesis judges by the clock, by default: an example of more than 0.2 s fails, and so do slow ones of a kind.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

SHIPPED = {(module, name): getattr(module, name) for module, name in OUTAGES}

# Read when the first temporary folder is made; the processes of pytest-xdist get theirs below the same.
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", fast_folder())


def pytest_xdist_auto_num_workers() -> int:
    """One process for each core: another one would collect everything again, and start servers and a browser too."""
    return os.cpu_count() or 1


def pytest_collection_finish() -> None:
    """Keeps what was imported out of the garbage collector's sight: looking through it takes a tenth of the suite."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The event loop that the server runs on; it takes a tenth off the suite, too."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session", autouse=True)
def patient() -> Iterator[None]:
    """No test takes a busy machine for a database that is away."""
    with patience():
        yield


@pytest.fixture
def as_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The product's own patience with a database, for a test in which one really is away."""
    for (module, name), seconds in SHIPPED.items():
        monkeypatch.setattr(module, name, seconds)


@pytest.fixture(scope="session", autouse=True)
def forks() -> Iterator[None]:
    """What is forked for commands and servers ends with the run, and is a part of its time."""
    yield
    end_forks()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with server_for_tests() as server:
        yield server


def prepared_file(tmp_path_factory: pytest.TempPathFactory, algorithm: str) -> Path:
    """Create a SQLite file with schema and a key. Tests copy it, which is faster than creating one each."""
    path = tmp_path_factory.mktemp("template") / f"{algorithm}.db"
    asyncio.run(prepare(cheap_settings(f"sqlite:///{path}", jwt_algorithm=algorithm)))
    return path


def prepared_database(postgres: Postgres, algorithm: str) -> str:
    """Create a PostgreSQL database with schema and a key, as a template."""
    url = postgres.create_database()
    asyncio.run(prepare(cheap_settings(url, jwt_algorithm=algorithm)))
    return url


# Most tests use an Ed25519 key: an RSA signature costs forty times as much.
@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_file(tmp_path_factory, "EdDSA")


@pytest.fixture(scope="session")
def sqlite_rsa_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_file(tmp_path_factory, "RS256")


@pytest.fixture(scope="session")
def sqlite_curve_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_file(tmp_path_factory, "ES256")


@pytest.fixture(scope="session")
def postgres_template(postgres: Postgres) -> str:
    return prepared_database(postgres, "EdDSA")


@pytest.fixture(scope="session")
def postgres_curve_template(postgres: Postgres) -> str:
    return prepared_database(postgres, "ES256")


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def database_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with _copy_of("{}_template", backend, request, tmp_path) as url:
        yield url


@pytest.fixture
def curve_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with _copy_of("{}_curve_template", backend, request, tmp_path) as url:
        yield url


@contextlib.contextmanager
def _copy_of(template: str, backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    original = request.getfixturevalue(template.format("sqlite" if backend == "sqlite" else "postgres"))
    if backend == "sqlite":
        path = tmp_path / "latchstring.db"
        shutil.copy(original, path)
        yield f"sqlite:///{path}"
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    url = postgres.create_database(template=original)
    yield url
    postgres.drop_database(url)


@pytest.fixture
def empty_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database with nothing in it."""
    if backend == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture
def settings(database_url: str, request: pytest.FixtureRequest) -> Settings:
    """The server's settings. Only a test marked WITH_PAGES has pages: they double the time to build an application."""
    return cheap_settings(database_url, pages=request.node.get_closest_marker("pages") is not None)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def service(settings: Settings, clock: ManualClock) -> AsyncIterator[Service]:
    async with running_service(settings, clock) as running:
        yield running


@pytest.fixture(scope="module")
async def shared(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    path = shutil.copy(sqlite_template, tmp_path_factory.mktemp("shared") / "latchstring.db")
    async with running_service(cheap_settings(f"sqlite:///{path}")) as running:
        yield running
