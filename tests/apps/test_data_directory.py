"""The server's home: whose it is, the secret in it, and what happens when it can't be used."""

import json
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from latchstring import ConfigurationError, Settings
from latchstring.apps.data_directory import SECRET_FILE, prepare_data_directory
from tests.support.process import forked, latchstring, run_source


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "home"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_home_is_its_owners_alone(umask: int, home: Path) -> None:
    """The folder is 0700 and the secret 0600, whatever the umask; the secret is kept and not made again."""
    before = os.umask(umask)
    try:
        first, second = prepare_data_directory(Settings(data_dir=home)), prepare_data_directory(Settings(data_dir=home))
    finally:
        os.umask(before)
    assert (mode_of(home), mode_of(home / SECRET_FILE)) == (0o700, 0o600)
    assert first.secret == second.secret
    assert first.secret is not None
    assert (home / SECRET_FILE).read_text().strip() == first.secret.get_secret_value()
    assert len(first.secret.get_secret_value()) >= 32
    assert [path.name for path in home.iterdir()] == [SECRET_FILE]


def test_two_homes_have_two_secrets(tmp_path: Path) -> None:
    """The secret is random, and no default that every installation shares (CVE-2021-40494)."""
    one, other = (prepare_data_directory(Settings(data_dir=tmp_path / name)).secret for name in "ab")
    assert one != other


def test_a_home_that_others_may_enter_is_closed(home: Path) -> None:
    """A folder made by hand with the usual mode becomes private before anything is put into it."""
    home.mkdir(parents=True)
    home.chmod(0o755)
    prepare_data_directory(Settings(data_dir=home))
    assert mode_of(home) == 0o700


@pytest.mark.parametrize(
    ("settings", "made"),
    [
        ({}, True),
        ({"secret": "s" * 32}, True),  # the database lies there
        ({"database_url": "sqlite:///here.db"}, True),  # the secret lies there
        ({"database_url": "sqlite:///here.db", "secret": "s" * 32}, False),
        ({"database_url": "postgresql://db/auth", "secret": "s" * 32}, False),
        ({"database_url": "postgresql://db/auth", "jwt_private_key": "given"}, False),
    ],
    ids=str,
)
def test_a_home_is_made_only_where_something_lies_in_it(settings: dict[str, str], made: bool, home: Path) -> None:  # noqa: FBT001 -- a row
    """With database and secret elsewhere nothing is written to the working folder."""
    prepare_data_directory(Settings.model_validate({"data_dir": home, **settings}))
    assert home.exists() is made


# Starts eight processes at once, twenty times, and prints the secrets each time's processes saw.
_EIGHT_AT_ONCE = """
import json, os, pathlib, sys
from latchstring import Settings
from latchstring.apps.data_directory import prepare_data_directory

if sys.argv[2] == "containers":
    os.getpid = lambda: 1

def moved_in(gate, out, home):
    os.read(gate, 1)
    os.write(out, prepare_data_directory(Settings(data_dir=home)).secret.get_secret_value().encode() + b"\\n")

seen = []
for number in range(20):
    home = pathlib.Path(sys.argv[1]) / str(number)
    gate, starter = os.pipe()
    results, out = os.pipe()
    children = []
    for _ in range(8):
        child = os.fork()
        if child == 0:
            os.close(starter)
            status = 1
            try:
                moved_in(gate, out, home)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    os.close(starter)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    os.close(out)
    with os.fdopen(results) as lines:
        seen.append(sorted(lines.read().split() + [(home / "secret").read_text().strip()]))
    assert os.listdir(home) == ["secret"]
print(json.dumps(seen))
"""


@pytest.mark.parametrize("where", ["one machine", "containers"])
def test_eight_processes_at_once_make_one_secret(where: str, tmp_path: Path) -> None:
    """All see the same one, and it stays; also in containers that share a volume, each of them process number 1."""
    run = forked(run_source, "python", _EIGHT_AT_ONCE, str(tmp_path), where, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    for secrets in json.loads(run.stdout):
        assert len(secrets) == 9
        assert len(set(secrets)) == 1


def _is_a_folder(home: Path) -> None:
    (home / SECRET_FILE).mkdir(parents=True)


def _is_short(home: Path) -> None:
    home.mkdir(parents=True)
    (home / SECRET_FILE).write_text("k" * 31 + "\n")


def _is_no_text(home: Path) -> None:
    home.mkdir(parents=True)
    (home / SECRET_FILE).write_bytes(b"\xff" * 40)


def _lies_below_a_file(home: Path) -> None:
    home.parent.write_text("a file where the folder should be")


def _is_a_file(home: Path) -> None:
    home.parent.mkdir()
    home.write_text("a file")


@pytest.mark.parametrize("spoil", [_is_a_folder, _is_short, _is_no_text, _lies_below_a_file, _is_a_file])
def test_a_home_that_cant_be_used_is_a_configuration_error(spoil: Callable[[Path], None], home: Path) -> None:
    """One sentence says which file or folder is wrong; the secret is not replaced behind the operator's back."""
    spoil(home)
    before = sorted(home.parent.rglob("*")) if home.parent.is_dir() else []
    with pytest.raises(ConfigurationError, match=str(home)) as refusal:
        prepare_data_directory(Settings(data_dir=home))
    assert "kkkk" not in str(refusal.value)
    assert (sorted(home.parent.rglob("*")) if home.parent.is_dir() else []) == before


def test_a_home_with_no_room_is_a_configuration_error(home: Path) -> None:
    """Where the secret can't be written, because the disk is full or read-only, the sentence names the folder."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(ConfigurationError, match=str(home)):
            prepare_data_directory(Settings(data_dir=home))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (home / SECRET_FILE).exists()


def test_the_command_line_exits_with_3(tmp_path: Path) -> None:
    """A home that can't be made ends a command with the code for settings and one sentence, no traceback."""
    (tmp_path / "file").touch()
    run = latchstring("serve", cwd=tmp_path, variables={"LATCHSTRING_DATA_DIR": "file/home"})
    assert (run.returncode, run.stdout) == (3, "")
    assert "LATCHSTRING_DATA_DIR" in run.stderr
    assert len(run.stderr.splitlines()) == 1
