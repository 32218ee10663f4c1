"""The rules of the project that no linter knows."""

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import latchstring
from latchstring import Code, Settings
from tests.support.folders import ROOT

SOURCE = ROOT / "src" / "latchstring"
MODULES = {path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}


def test_the_public_names_are_exactly_those() -> None:
    """What can be imported from `latchstring` is what `__all__` says, in the order a reader expects."""
    found = {name: getattr(latchstring, name) for name in latchstring.__all__}
    own = {
        name
        for name, value in vars(latchstring).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and name not in {"TYPE_CHECKING", "import_module"}
    }
    assert own == found.keys() == set(dir(latchstring))
    assert latchstring.__all__ == sorted(
        latchstring.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name)
    )
    # Type checkers and editors are told of the same names, from the same homes.
    (shown,) = (
        node
        for node in MODULES["__init__.py"].body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    imports = [node for node in shown.body if isinstance(node, ast.ImportFrom)]
    assert {node.module: tuple(alias.name for alias in node.names) for node in imports} == latchstring._MODULES
    with pytest.raises(AttributeError, match="no attribute 'Secrets'"):
        _ = latchstring.Secrets  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", latchstring.__all__)
def test_every_public_name_has_a_docstring(name: str) -> None:
    """A contract of its own, not one inherited from Python or from a library."""
    value = getattr(latchstring, name)
    kind = value if inspect.isclass(value) or inspect.isfunction(value) else type(value)
    own_words = kind.__doc__ if kind.__module__.startswith("latchstring") else None
    assert own_words or name in _DOCUMENTED_VALUES


def _documented_values() -> Iterator[str]:
    for tree in MODULES.values():
        for statement, following in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                if isinstance(statement, ast.Assign):
                    yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
                elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                    yield statement.target.id


_DOCUMENTED_VALUES = set(_documented_values())


def test_importing_the_verifier_is_lighter() -> None:
    """A service that only verifies tokens loads no database and no password hashing."""
    heavy = {"alembic", "aiosqlite", "argon2", "latchstring.auth", "sqlalchemy", "typer", "uvicorn"}
    program = f"import latchstring.verifier, sys; print(*sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def dotted_uses(tree: ast.Module) -> set[str]:
    """Returns every dotted name that a module uses, as it is known where it comes from: `os.environ`, `print`."""
    origin: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            origin |= {alias.asname or alias.name.split(".")[0]: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    used = set(origin.values())
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            used.add(origin.get(node.id, node.id))
        elif isinstance(node, ast.Attribute):
            written = ast.unparse(node)
            first, _, rest = written.partition(".")
            used.add(f"{origin.get(first, first)}.{rest}")
    return used


@pytest.mark.parametrize(
    ("used", "only_in", "why"),
    [
        (
            r"os\.(environ|environb|getenv|putenv)|dotenv(\..*)?",
            "apps/environment.py",
            "the library reads no environment",
        ),
        (
            (
                r"time\.(time|time_ns|monotonic|monotonic_ns|clock_gettime|perf_counter)"
                r"|datetime\.(datetime\.|date\.)?(now|utcnow|today)"
            ),
            "foundation/clock.py",
            "time is passed in",
        ),
        (r"print|sys\.stdout(\..*)?", "apps/cli/", "a library says nothing on its host's stdout"),
        (r"sys\.exit|exit|os\._exit|quit", "apps/cli/", "only a command ends the process"),
        (r"random(\..*)?|uuid\.uuid[14]", "nowhere", "randomness is `secrets`"),
        (r"asyncio\.get_event_loop|.*\.set_event_loop", "nowhere", "the loop is the host's"),
        (r"logging\.basicConfig", "apps/logs.py", "a library configures no logging"),
    ],
    ids=["environment", "time", "print", "exit", "random", "loop", "logging"],
)
def test_what_is_used_in_one_place_only(used: str, only_in: str, why: str) -> None:
    """The rule of each row; a second place needs a very good reason."""
    found = {name for name, tree in MODULES.items() if any(re.fullmatch(used, use) for use in dotted_uses(tree))}
    assert {name for name in found if not name.startswith(only_in)} == set(), why
    assert found or only_in == "nowhere", "nobody uses it any more: the row is out of date"


@pytest.mark.parametrize("name", MODULES)
def test_every_module_opens_with_a_docstring(name: str) -> None:
    """A picture, or a few sentences, of what is inside (STYLE, habit 1)."""
    assert ast.get_docstring(MODULES[name])


def test_no_module_is_longer_than_a_reader_can_hold() -> None:
    """At most 400 lines in a file, and 40 in a function that is not a table of routes."""
    long_files = [name for name in MODULES if (SOURCE / name).read_text().count("\n") > 400]
    long_functions = [
        f"{name}: {node.name}"
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= 40
        and not any(isinstance(inner, ast.AsyncFunctionDef) and inner.decorator_list for inner in ast.walk(node))
        and node.name != "renewal_router"  # a table as well: one of its routes is added without a decorator
    ]
    assert (long_files, long_functions) == ([], [])


def test_the_test_of_a_module_is_at_its_path() -> None:
    """CONTRIBUTING.md: the folders of the mirror are packages of the source, each with a test or a package in it."""
    mirrored = ("apps", "core", "features", "foundation", "verifier")
    folders = {path.parent for each in mirrored for path in (ROOT / "tests" / each).rglob("test_*.py")}
    assert folders
    assert {folder for folder in folders if not (SOURCE / folder.relative_to(ROOT / "tests")).is_dir()} == set()
    # Every package of core, where the promises are, has its own.
    tested = {folder.name for folder in folders if folder.parent.name == "core"}
    assert {path.name for path in (SOURCE / "core").iterdir() if path.is_dir() and path.name[0] != "_"} - tested == {
        "sign_in"  # a proof and what it leads to are stories: tests/journeys
    }


def test_the_import_contracts_hold() -> None:
    """The packages and layers of ARCHITECTURE.md; what is wrong is in the output."""
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_is_documented(field: str) -> None:
    """docs/settings.md names each variable: a setting nobody can find might as well not be there."""
    assert re.search(rf"\bLATCHSTRING_{field.upper()}\b", (ROOT / "docs" / "settings.md").read_text())


def test_no_setting_is_documented_that_is_none() -> None:
    """A name that was removed or misspelt does not linger in the docs."""
    written = "".join(path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
    named = set(re.findall(r"\bLATCHSTRING_[A-Z_]*[A-Z]\b", written)) - {
        "LATCHSTRING_TEST_BROWSER",
        "LATCHSTRING_TEST_NGINX",
        "LATCHSTRING_TEST_POSTGRES_URL",
    }
    assert named <= {f"LATCHSTRING_{field.upper()}" for field in Settings.model_fields}


@pytest.mark.parametrize("code", Code)
def test_every_error_code_is_documented(code: Code) -> None:
    """docs/errors.md tells what each code means and what a client does about it."""
    assert f"`{code}`" in (ROOT / "docs" / "errors.md").read_text()


def test_the_changelog_begins_with_this_version() -> None:
    """What is released has been told to the person who upgrades."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version


def test_the_checks_end_within_the_time_that_they_promise() -> None:
    """`.ci/run` says how long it takes at most: the limits of its steps together."""
    script = (ROOT / ".ci" / "run").read_text()
    promised = re.findall(r"Ends within (\d+) minutes", script)
    steps = [int(minutes) for minutes in re.findall(r"^ *step (\d+) ", script, re.MULTILINE)]
    assert len(steps) > 5
    # A step that is ended gets 15 s more, and is the last one.
    assert [sum(steps) + 1] <= [int(minutes) for minutes in promised]
