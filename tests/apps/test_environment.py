"""Which names are read, from where, and which of two wins."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from latchstring import ConfigurationError, Settings
from latchstring.apps.environment import (
    TUTORIAL_NAMES,
    read_variables,
    settings_from,
    unknown_variables,
    variable_name,
)
from tests.support.folders import ROOT

SETTINGS_MD = ROOT / "docs" / "settings.md"
TUTORIAL = {
    "POSTGRES_USER": "admin",
    "POSTGRES_PASSWORD": "password123",
    "POSTGRES_SERVER": "localhost",
    "POSTGRES_PORT": "6500",
    "POSTGRES_DB": "fastapi",
    "JWT_ALGORITHM": "ES256",
    "JWT_PRIVATE_KEY": "cHJpdmF0ZQ==",
    "JWT_PUBLIC_KEY": "cHVibGlj",
    "JWT_EXTRA_PUBLIC_KEYS": "ZXh0cmE=",
    "ACCESS_TOKEN_EXPIRE_MINUTES": "16.5",
    "REFRESH_TOKEN_EXPIRE_MINUTES": "61.5",
    "CLIENT_ORIGIN": "http://localhost:3333",
}


def shown(settings: Settings) -> Mapping[str, str]:
    """Returns each setting as the text it was given as."""
    plain = {name: getattr(value, "get_secret_value", lambda value=value: value)() for name, value in settings}
    return {name: str(value) for name, value in plain.items()}


def test_the_table_names_every_variable_of_the_tutorial() -> None:
    """None of the tutorial's names is left out of the tests below."""
    assert TUTORIAL.keys() == TUTORIAL_NAMES


@pytest.mark.parametrize("prefix", ["", "LATCHSTRING_"])
def test_the_tutorials_env_works_by_both_names(prefix: str) -> None:
    """Each variable of the tutorial is read by the tutorial's name and by its LATCHSTRING_ twin."""
    settings = shown(settings_from({prefix + name: value for name, value in TUTORIAL.items()}))
    assert {name: settings[name.lower()] for name in TUTORIAL} == TUTORIAL


@pytest.mark.parametrize("name", sorted(TUTORIAL))
def test_our_name_wins_over_the_tutorials(name: str) -> None:
    """Where both are set, the LATCHSTRING_ one counts, so that a host's own variables may stay as they are."""
    theirs = {"JWT_ALGORITHM": "PS256", "POSTGRES_PORT": "6501", "CLIENT_ORIGIN": "http://localhost:1"}.get(name, "17")
    settings = settings_from(TUTORIAL | {f"LATCHSTRING_{name}": TUTORIAL[name], name: theirs})
    assert shown(settings)[name.lower()] == TUTORIAL[name]


@pytest.mark.parametrize(
    ("from_file", "from_process", "audience"),
    [
        ("", {}, None),
        ("LATCHSTRING_AUDIENCE=file", {}, "file"),
        ('export LATCHSTRING_AUDIENCE="file"  # a comment', {}, "file"),
        ("LATCHSTRING_AUDIENCE=file", {"LATCHSTRING_AUDIENCE": "process"}, "process"),
        ("LATCHSTRING_AUDIENCE=", {}, None),
        ("LATCHSTRING_AUDIENCE", {}, None),
        ("", {"LATCHSTRING_AUDIENCE": ""}, None),
    ],
)
def test_env_file_and_process(
    from_file: str,
    from_process: dict[str, str],
    audience: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A `.env` in the working folder is read, real variables win over it, and an empty one counts as not set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LATCHSTRING_AUDIENCE", raising=False)
    for name, value in from_process.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".env").write_text(from_file)
    assert settings_from(read_variables()).audience == audience


def test_only_the_working_folders_env_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `.env` further up is somebody else's, and none at all is fine."""
    (tmp_path / ".env").write_text("LATCHSTRING_AUDIENCE=stranger")
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.delenv("LATCHSTRING_AUDIENCE", raising=False)
    assert settings_from(read_variables()).audience is None


def test_an_env_file_that_is_no_text_is_a_configuration_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `.env` saved in another encoding than UTF-8 gets a sentence, not a traceback."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_bytes("LATCHSTRING_AUDIENCE=café".encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"\.env"):
        read_variables()


def test_misspelt_names_are_found() -> None:
    """A name that begins like ours and is none is reported; other people's variables are not."""
    variables = {
        "LATCHSTRING_AUDIENCES": "a",
        "LATCHSTRING_": "b",
        "LATCHSTRING_SECRET": "c",
        "PATH": "d",
        "JWT_X": "e",
    }
    assert unknown_variables(variables) == ["LATCHSTRING_", "LATCHSTRING_AUDIENCES"]


def test_every_setting_has_one_documented_variable() -> None:
    """No two settings share a variable, and the tutorial's are shown by the names the tutorial's reader knows."""
    names = [variable_name(field) for field in Settings.model_fields]
    assert len(set(names)) == len(names)
    assert {name for name in names if not name.startswith("LATCHSTRING_")} == TUTORIAL_NAMES


WORKED_OUT = {"JWT_ALGORITHM", "PASSWORD_HASH_THREADS"}
"""Of these the documented default is a sentence, though the setting has a value: the database's, or the machine's."""


def in_words(default: object) -> str:
    """Returns a default as the documentation writes it."""
    if default is None:
        return "none"
    if isinstance(default, bool):
        return "on" if default else "off"
    return str(default)


def test_settings_md_has_a_row_for_every_setting() -> None:
    """Each variable once, the tutorial's name beside ours, and the default that is in force; none that is not there."""
    rows = re.findall(r"^\| `LATCHSTRING_(\w+)`(?: \*`(\w+)`\*)? \| (.*?) \|", SETTINGS_MD.read_text(), re.MULTILINE)
    assert sorted(name.lower() for name, _, _ in rows) == sorted(Settings.model_fields)
    assert {name for name, tutorial, _ in rows if tutorial} == TUTORIAL_NAMES
    assert all(tutorial in {"", name} for name, tutorial, _ in rows)
    settings = Settings()
    for name, _, documented in rows:
        default = getattr(settings, name.lower())
        # Where nothing is set, a sentence may say what follows from that.
        is_said_otherwise = default in (None, ()) or name in WORKED_OUT
        assert documented.strip("`") == in_words(default) or is_said_otherwise, (name, documented)
