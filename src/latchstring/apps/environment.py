"""Read settings from the environment and from `.env`, and pass some on to workers. No other module does.

A setting's variable is `LATCHSTRING_` and its name. The tutorial's variables also work under the tutorial's names; if
both are set, ours wins. Environment variables win over a `.env` file in the working directory.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values
from pydantic import ValidationError

from latchstring.errors import ConfigurationError
from latchstring.settings import Settings, sentences

PREFIX = "LATCHSTRING_"
# Read by this module and not by pydantic-settings, where two names for one field, and errors that name the variable but
# not its value, need workarounds (decision 4).
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
    """Return the variables of `.env` in the working directory, overridden by those of the process.

    Raises:
        ConfigurationError: there is a `.env` file that can't be read.
    """
    try:
        # This path only: python-dotenv's own search would take a `.env` of any parent directory.
        from_file = dotenv_values(Path(".env"))
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError("the .env file in the working directory must be readable UTF-8 text") from None
    return {name: value for name, value in from_file.items() if value is not None} | os.environ


def notify_socket() -> str | None:
    """Return the socket of the service manager that started us (`NOTIFY_SOCKET` of systemd), if there is one."""
    # From the process alone: it says who started this process, which no file can know.
    return os.environ.get("NOTIFY_SOCKET") or None


def settings_from(variables: Mapping[str, str]) -> Settings:
    """Return the settings that `variables` describe. An empty variable counts as not set.

    Raises:
        ConfigurationError: a value can't be used. The message names the variable and says what it must be, without
            the value.
    """
    values: dict[str, str] = {}
    used_names: dict[str, str] = {}
    for field in Settings.model_fields:
        for name in _names(field):
            # Compose files and CI systems pass a variable that is not set as an empty one.
            if variables.get(name):
                values[field], used_names[field] = variables[name], name
                break
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        # By the name the operator used, which may be the tutorial's.
        messages = sentences(error, name=lambda field: used_names.get(field, variable_name(field)))
        # `from None`: Pydantic's own error would print the value, which may be a secret.
        raise ConfigurationError("; ".join(messages)) from None


def unknown_variables(variables: Mapping[str, str]) -> list[str]:
    """Return the variables that begin with our prefix but are no settings: probably misspelt."""
    all_names = {name for field in Settings.model_fields for name in _names(field)}
    return sorted(name for name in variables if name.startswith(PREFIX) and name not in all_names)


def set_for_workers(name: str, value: str) -> None:
    """Set a variable of this process, which the workers that it starts inherit."""
    os.environ[name] = value


def variable_name(field: str) -> str:
    """Return the variable of a setting under the name that the documentation uses."""
    return _names(field)[-1]


def _names(field: str) -> list[str]:
    name = field.upper()
    # In order of precedence: ours first.
    return [PREFIX + name, name] if name in TUTORIAL_NAMES else [PREFIX + name]
