"""The only reader of the environment and of `.env`.

Each setting is `LATCHSTRING_` and its name. The tutorial's variables are known by the tutorial's names as well; where
both are set, ours wins. Real variables win over those of a `.env` file in the working folder.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values
from pydantic import ValidationError

from latchstring.errors import ConfigurationError
from latchstring.settings import Settings, sentences

PREFIX = "LATCHSTRING_"
TUTORIAL_NAMES = frozenset(
    {
        "ACCESS_TOKEN_EXPIRE_MINUTES",
        "CLIENT_ORIGIN",
        "JWT_ALGORITHM",
        "JWT_EXTRA_PUBLIC_KEYS",
        "JWT_PRIVATE_KEY",
        "JWT_PUBLIC_KEY",
        "POSTGRES_DB",
        "POSTGRES_PASSWORD",
        "POSTGRES_PORT",
        "POSTGRES_SERVER",
        "POSTGRES_USER",
        "REFRESH_TOKEN_EXPIRE_MINUTES",
    }
)


def read_variables() -> dict[str, str]:
    """Return the variables of the working folder's `.env`, with those of the process laid over them.

    Raises:
        ConfigurationError: there is a `.env` that can't be read.
    """
    try:
        from_file = dotenv_values(Path(".env"))
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError("the .env file in the working folder must be readable, and text in UTF-8") from None
    return {name: value for name, value in from_file.items() if value is not None} | os.environ


def settings_from(variables: Mapping[str, str]) -> Settings:
    """Return the settings that `variables` describe. An empty variable counts as not set.

    Raises:
        ConfigurationError: a value can't be used. The message names the variable and says what it must be; it does
            not repeat the value.
    """
    given: dict[str, str] = {}
    spelled: dict[str, str] = {}
    for field in Settings.model_fields:
        for name in _names(field):
            if variables.get(name):
                given[field], spelled[field] = variables[name], name
                break
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        words = sentences(error, name=lambda field: spelled.get(field, variable_name(field)))
        raise ConfigurationError("; ".join(words)) from None


def unknown_variables(variables: Mapping[str, str]) -> list[str]:
    """Return the names that begin like ours and are none: misspelt, most likely."""
    known = {name for field in Settings.model_fields for name in _names(field)}
    return sorted(name for name in variables if name.startswith(PREFIX) and name not in known)


def variable_name(field: str) -> str:
    """Return the name of a setting's variable that the documentation uses."""
    return _names(field)[-1]


def _names(field: str) -> list[str]:
    name = field.upper()
    return [PREFIX + name, name] if name in TUTORIAL_NAMES else [PREFIX + name]
