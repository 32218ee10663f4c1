"""What the library costs the application that has it, counted: modules, and calls of functions (S1).

A count is the same on every machine. How long it all takes is measured by `benchmarks/run.py --only library`.
"""

import gc
import subprocess
import sys
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from types import FrameType
from typing import Any

from starlette.types import ASGIApp

import latchstring
from benchmarks import library

OUR_SOURCE = str(Path(latchstring.__file__).parent)

# What FastAPI or SQLAlchemy brings is no cost of ours.
PACKAGES_OF_AUTH = {"aiosqlite", "argon2", "bcrypt", "cryptography", "joserfc", "latchstring"}
PARTS_OF_THE_SERVER = {
    "latchstring.apps",
    "latchstring.testing",
    "latchstring.verifier",
}
_IMPORTED = """
import sys, fastapi, sqlalchemy.ext.asyncio
already = set(sys.modules)
import latchstring
{}
print(*sorted(set(sys.modules) - already))
"""


def imported_by(statement: str) -> set[str]:
    """Returns the modules that a statement adds to a process that has FastAPI and SQLAlchemy."""
    program = _IMPORTED.format(statement)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_auth_brings_a_closed_list_of_packages() -> None:
    """S1: no server, no command line, no templates, no migrations, no HTTP client and no other database's driver."""
    modules = imported_by("latchstring.Auth, latchstring.CurrentUser")
    assert "latchstring.auth" in modules, "nothing was imported"
    packages = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names
    host = {"fastapi", "pydantic", "sqlalchemy", "starlette"}
    # Compiled parts of packages stand beside them, under names of their own.
    compiled = {name for name in packages if name.startswith("_") or name == "cython_runtime"}
    assert packages - host - compiled <= PACKAGES_OF_AUTH
    assert {part for part in PARTS_OF_THE_SERVER if part in modules} == set()


class Calls:
    """How many functions written in Python were called, by where they are."""

    def __init__(self) -> None:
        self.where: Counter[str] = Counter()

    @property
    def total(self) -> int:
        return self.where.total()

    @property
    def of_ours(self) -> int:
        return sum(times for where, times in self.where.items() if where.startswith(OUR_SOURCE))

    def more_than(self, other: "Calls") -> str:
        """Returns where there were more than there, for the message of a failure."""
        return "\n" + "\n".join(f"{times:+} {where}" for where, times in sorted((self.where - other.where).items()))


def calls_of(app: ASGIApp, path: str, token: str = "") -> Calls:
    """Returns what one request calls, after one that has filled whatever is remembered."""
    calls = Calls()

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            calls.where[f"{frame.f_code.co_filename}:{frame.f_code.co_qualname}"] += 1

    run_at_once(library.requested(app, path, token))
    request = library.requested(app, path, token)
    gc.disable()  # what is collected meanwhile may call functions, too
    sys.setprofile(note)
    try:
        run_at_once(request)
    finally:
        sys.setprofile(None)
        gc.enable()
    return calls


def run_at_once(request: Coroutine[Any, Any, None]) -> None:
    """Runs a request that waits for nothing, so that nothing else can run meanwhile."""
    try:
        request.send(None)
    except StopIteration:
        return
    request.close()
    raise AssertionError("it waits")


async def test_a_route_that_is_not_guarded_pays_next_to_nothing(tmp_path: Path) -> None:
    """S1: the layer below which WebSockets are watched, and each of our two routers: is the path its own?"""
    bare, installed = (calls_of(app, "/open") for app in library.hosts(tmp_path))
    assert 0 < installed.of_ours <= 3, installed.more_than(bare)
    # FastAPI makes three calls around each of ours; a release may make a few more.
    assert installed.total - bare.total <= 12, installed.more_than(bare)


async def test_the_asgi_guard_makes_few_calls(tmp_path: Path) -> None:
    """S1: for a token that was seen before, it waits for nothing and asks no library anything."""
    async with library.signed_in(tmp_path) as (auth, token):
        bare, guarded = calls_of(library.plain, "/file"), calls_of(auth.protect(library.plain), "/file", token)
    assert 0 < guarded.of_ours <= 25, guarded.more_than(bare)
    assert guarded.total - bare.total == guarded.of_ours, guarded.more_than(bare)
