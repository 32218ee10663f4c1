"""Sign-in for FastAPI that is right under concurrency.

Every public name is here, and nothing else is public.
"""

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
    RevocationsUnknownError,
    UnavailableError,
)
from latchstring.features.password import PasswordFeature
from latchstring.features.profile import ProfileFeature
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
    "RevocationsUnknownError",
    "Room",
    "Settings",
    "UnavailableError",
    "User",
    "current_caller",
    "current_user",
    "fresh",
]

DEFAULT_FEATURES: tuple[Feature, ...] = (ProfileFeature(), PasswordFeature())
"""What the server switches on."""
