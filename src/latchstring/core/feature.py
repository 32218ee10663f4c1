"""The interface of features: what a feature gets, and what it returns.

A feature is a small object. `wiring.build` calls its `build` once, and `Auth` mounts the parts that it returns.
Features do not import each other, and what mounts them knows this interface alone. The built-in features use it too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fastapi import APIRouter

from latchstring.core.guard.decide import Guard
from latchstring.core.restore.stored import StoredData
from latchstring.core.revocations.feed import RevocationFeed
from latchstring.core.sessions.actions import Sessions
from latchstring.core.sessions.page_router import PageRouter
from latchstring.core.sessions.refresh import Refresher
from latchstring.core.sessions.responses import SignedInResponse
from latchstring.core.sessions.step_up import StepUp
from latchstring.core.sign_in.actions import SignIn
from latchstring.core.sign_in.token_endpoint import Grant
from latchstring.core.users.actions import Users
from latchstring.foundation.clock import Clock
from latchstring.foundation.database import Database
from latchstring.foundation.limits import Limits
from latchstring.foundation.measurements import UNMETERED, Meter
from latchstring.foundation.passwords import PasswordHasher
from latchstring.foundation.web.context import WebContext


@dataclass(frozen=True, slots=True)
class Tools:
    """The parts of `foundation` that a feature may use."""

    database: Database
    clock: Clock
    passwords: PasswordHasher
    limits: Limits
    web: WebContext
    meter: Meter = UNMETERED
    """Counts sign-ins; it does nothing unless the application has metrics."""


@dataclass(frozen=True, slots=True)
class Core:
    """The parts of `core` that a feature may use."""

    # No function that creates sessions: a feature hands a `Proof` to `sign_in`, so that no sign-in method can skip a
    # check (CVE-2022-24857, django-mfa3: a second factor on one login only).
    users: Users
    sessions: Sessions
    refresher: Refresher
    sign_in: SignIn
    guard: Guard
    feed: RevocationFeed
    signed_in_response: SignedInResponse


BuildPages = Callable[[PageRouter], APIRouter]
"""Builds a feature's pages with `PageRouter.router`, when `Auth.install` mounts them."""


@dataclass(frozen=True, slots=True)
class FeatureParts:
    """What a feature offers: routes under the prefix of `Auth`, pages, and grant types of `/token`."""

    name: str
    """The feature's name in errors."""
    router: APIRouter
    pages: BuildPages | None = None
    """Called only if the application has pages."""
    links: Sequence[tuple[str, str]] = ()
    """Entries of the pages' navigation: a label from the catalogues, and a path below the pages' prefix."""
    step_up: StepUp | None = None
    """The confirmation of a visitor's identity on pages. At most one feature offers it."""
    grants: Mapping[str, Grant] = field(default_factory=dict)
    """The grants of `/token` by `grant_type`."""
    stored: Sequence[StoredData] = ()
    """What the feature stores, in view of a restored copy of the database: see `Auth.restored`."""


class Feature(Protocol):
    """A part of the service that an application switches on, such as passwords."""

    def build(self, tools: Tools, core: Core) -> FeatureParts:
        """Return the feature's parts, built with the given tools. Called once, before any application is known."""
        ...
