"""Sign-in for FastAPI that is right under concurrency.

Every public name is here, except for `latchstring.verifier` and `latchstring.testing`. Nothing else is public. Each
name is imported on first use (PEP 562), so that a service that only verifies tokens loads neither SQLAlchemy nor
argon2.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latchstring.auth import Auth
    from latchstring.core.accounts.rules import (
        InvalidRoleError,
        User,
    )
    from latchstring.core.accounts.tables import users
    from latchstring.core.caller import Caller
    from latchstring.core.feature import (
        Core,
        Feature,
        FeatureParts,
        Tools,
    )
    from latchstring.core.guard.dependencies import (
        CallerDep,
        CurrentUser,
        OptionalUser,
        current_caller,
        current_user,
        fresh,
        optional_user,
        requires,
    )
    from latchstring.core.guard.middleware import GuardMiddleware
    from latchstring.core.guard.pages import PageUser, on_page
    from latchstring.errors import (
        Code,
        ConfigurationError,
        DatabaseUnavailableError,
        HashQueueFullError,
        KeysUnavailableError,
        LatchstringError,
        RefusedError,
        RevocationsUnknownError,
        SubscriberError,
        UnavailableError,
    )
    from latchstring.features import DEFAULT_FEATURES
    from latchstring.features.password import PasswordFeature
    from latchstring.features.profile import ProfileFeature
    from latchstring.features.revocation_feed import RevocationFeedFeature
    from latchstring.foundation.events import (
        APPLICATION,
        OPERATOR,
        Event,
        EveryoneSignedOut,
        FeedTokenCreated,
        FeedTokenRevoked,
        GrantingEvent,
        KeyCreated,
        KeyEvent,
        KeyRetired,
        KeyRetiredAtOnce,
        PasswordChanged,
        PasswordUpgraded,
        RefreshRepeatedElsewhere,
        RefreshTokenReused,
        RoleEvent,
        RoleGranted,
        RoleWithdrawn,
        SecretChanged,
        SessionCreated,
        SessionEnded,
        SessionEvent,
        SessionProven,
        SessionsEnded,
        SignInRefused,
        Source,
        UserDeleted,
        UserDisabled,
        UserEnabled,
        UserEvent,
        UserRegistered,
        UserRenamed,
    )
    from latchstring.foundation.web.pages.options import Pages
    from latchstring.inspection import (
        Access,
        Finding,
        InspectedRoute,
        Inspection,
        guarding,
        public,
    )
    from latchstring.migrations import alembic_include_name
    from latchstring.settings import Settings

__all__ = [
    "APPLICATION",
    "DEFAULT_FEATURES",
    "OPERATOR",
    "Access",
    "Auth",
    "Caller",
    "CallerDep",
    "Code",
    "ConfigurationError",
    "Core",
    "CurrentUser",
    "DatabaseUnavailableError",
    "Event",
    "EveryoneSignedOut",
    "Feature",
    "FeatureParts",
    "FeedTokenCreated",
    "FeedTokenRevoked",
    "Finding",
    "GrantingEvent",
    "GuardMiddleware",
    "HashQueueFullError",
    "InspectedRoute",
    "Inspection",
    "InvalidRoleError",
    "KeyCreated",
    "KeyEvent",
    "KeyRetired",
    "KeyRetiredAtOnce",
    "KeysUnavailableError",
    "LatchstringError",
    "OptionalUser",
    "PageUser",
    "Pages",
    "PasswordChanged",
    "PasswordFeature",
    "PasswordUpgraded",
    "ProfileFeature",
    "RefreshRepeatedElsewhere",
    "RefreshTokenReused",
    "RefusedError",
    "RevocationFeedFeature",
    "RevocationsUnknownError",
    "RoleEvent",
    "RoleGranted",
    "RoleWithdrawn",
    "SecretChanged",
    "SessionCreated",
    "SessionEnded",
    "SessionEvent",
    "SessionProven",
    "SessionsEnded",
    "Settings",
    "SignInRefused",
    "Source",
    "SubscriberError",
    "Tools",
    "UnavailableError",
    "User",
    "UserDeleted",
    "UserDisabled",
    "UserEnabled",
    "UserEvent",
    "UserRegistered",
    "UserRenamed",
    "alembic_include_name",
    "current_caller",
    "current_user",
    "fresh",
    "guarding",
    "on_page",
    "optional_user",
    "public",
    "requires",
    "users",
]

# Importing `latchstring.verifier` imports this module first. With eager imports that took 77 MiB and 0.6 s; now it is
# 53 MiB and 0.4 s (measured on 24 November 2026). A test compares this table with the imports above.
_MODULES = {
    "latchstring.auth": ("Auth",),
    "latchstring.core.accounts.rules": ("InvalidRoleError", "User"),
    "latchstring.core.accounts.tables": ("users",),
    "latchstring.core.caller": ("Caller",),
    "latchstring.core.feature": ("Core", "Feature", "FeatureParts", "Tools"),
    "latchstring.core.guard.dependencies": (
        "CallerDep",
        "CurrentUser",
        "OptionalUser",
        "current_caller",
        "current_user",
        "fresh",
        "optional_user",
        "requires",
    ),
    "latchstring.core.guard.middleware": ("GuardMiddleware",),
    "latchstring.core.guard.pages": ("PageUser", "on_page"),
    "latchstring.errors": (
        "Code",
        "ConfigurationError",
        "DatabaseUnavailableError",
        "HashQueueFullError",
        "KeysUnavailableError",
        "LatchstringError",
        "RefusedError",
        "RevocationsUnknownError",
        "SubscriberError",
        "UnavailableError",
    ),
    "latchstring.features": ("DEFAULT_FEATURES",),
    "latchstring.features.password": ("PasswordFeature",),
    "latchstring.features.profile": ("ProfileFeature",),
    "latchstring.features.revocation_feed": ("RevocationFeedFeature",),
    "latchstring.foundation.events": (
        "APPLICATION",
        "OPERATOR",
        "Event",
        "EveryoneSignedOut",
        "FeedTokenCreated",
        "FeedTokenRevoked",
        "GrantingEvent",
        "KeyCreated",
        "KeyEvent",
        "KeyRetired",
        "KeyRetiredAtOnce",
        "PasswordChanged",
        "PasswordUpgraded",
        "RefreshRepeatedElsewhere",
        "RefreshTokenReused",
        "RoleEvent",
        "RoleGranted",
        "RoleWithdrawn",
        "SecretChanged",
        "SessionCreated",
        "SessionEnded",
        "SessionEvent",
        "SessionProven",
        "SessionsEnded",
        "SignInRefused",
        "Source",
        "UserDeleted",
        "UserDisabled",
        "UserEnabled",
        "UserEvent",
        "UserRegistered",
        "UserRenamed",
    ),
    "latchstring.foundation.web.pages.options": ("Pages",),
    "latchstring.inspection": ("Access", "Finding", "InspectedRoute", "Inspection", "guarding", "public"),
    "latchstring.migrations": ("alembic_include_name",),
    "latchstring.settings": ("Settings",),
}

# Hidden from type checkers, which would accept every misspelt name because of a module's `__getattr__`.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        for module, names in _MODULES.items():
            if name in names:
                value = getattr(import_module(module), name)
                # Python calls `__getattr__` only for missing names, so the next access is a plain lookup.
                globals()[name] = value
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return __all__
