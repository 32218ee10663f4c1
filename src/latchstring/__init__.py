"""Sign-in for FastAPI that is right under concurrency.

Every public name is here, but for `latchstring.verifier`, and nothing else is public. Each is imported when it is first
asked for, so that a service which only verifies tokens loads no database and no password hashing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latchstring.auth import Auth
    from latchstring.core.accounts.rules import User
    from latchstring.core.caller import Caller
    from latchstring.core.feature import Core, Feature, Foundation, Room
    from latchstring.core.sessions.guard import CallerDep, CurrentUser, current_caller, current_user, fresh
    from latchstring.errors import (
        Code,
        ConfigurationError,
        DatabaseUnavailableError,
        HashQueueFullError,
        KeysUnavailableError,
        LatchstringError,
        RefusedError,
        RevocationsUnknownError,
        UnavailableError,
    )
    from latchstring.features import DEFAULT_FEATURES
    from latchstring.features.password import PasswordFeature
    from latchstring.features.profile import ProfileFeature
    from latchstring.features.revocations import RevocationsFeature
    from latchstring.settings import Settings

__all__ = [
    "DEFAULT_FEATURES",
    "Auth",
    "Caller",
    "CallerDep",
    "Code",
    "ConfigurationError",
    "Core",
    "CurrentUser",
    "DatabaseUnavailableError",
    "Feature",
    "Foundation",
    "HashQueueFullError",
    "KeysUnavailableError",
    "LatchstringError",
    "PasswordFeature",
    "ProfileFeature",
    "RefusedError",
    "RevocationsFeature",
    "RevocationsUnknownError",
    "Room",
    "Settings",
    "UnavailableError",
    "User",
    "current_caller",
    "current_user",
    "fresh",
]

_HOMES = {
    "latchstring.auth": ("Auth",),
    "latchstring.core.accounts.rules": ("User",),
    "latchstring.core.caller": ("Caller",),
    "latchstring.core.feature": ("Core", "Feature", "Foundation", "Room"),
    "latchstring.core.sessions.guard": ("CallerDep", "CurrentUser", "current_caller", "current_user", "fresh"),
    "latchstring.errors": (
        "Code",
        "ConfigurationError",
        "DatabaseUnavailableError",
        "HashQueueFullError",
        "KeysUnavailableError",
        "LatchstringError",
        "RefusedError",
        "RevocationsUnknownError",
        "UnavailableError",
    ),
    "latchstring.features": ("DEFAULT_FEATURES",),
    "latchstring.features.password": ("PasswordFeature",),
    "latchstring.features.profile": ("ProfileFeature",),
    "latchstring.features.revocations": ("RevocationsFeature",),
    "latchstring.settings": ("Settings",),
}

# Hidden from type checkers, to which it would say that every name is there.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        for home, names in _HOMES.items():
            if name in names:
                value = getattr(import_module(home), name)
                globals()[name] = value
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return __all__
