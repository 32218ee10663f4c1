"""What a feature gets, and what it offers.

A feature is a small object. `Auth` calls its `build` once and mounts the parts that come back; it knows no feature
by name, and features know nothing of each other. The built-in ones come through this same door.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fastapi import APIRouter

from latchstring.core.guard.decide import Guard
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
from latchstring.foundation.passwords import PasswordHasher
from latchstring.foundation.web.context import WebContext


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools a feature may use."""

    database: Database
    clock: Clock
    passwords: PasswordHasher
    limits: Limits
    web: WebContext


@dataclass(frozen=True, slots=True)
class Core:
    """What every feature may build on."""

    users: Users
    sessions: Sessions
    refresher: Refresher
    sign_in: SignIn
    guard: Guard
    feed: RevocationFeed
    signed_in_response: SignedInResponse


BuildPages = Callable[[PageRouter], APIRouter]
"""Builds a feature's pages on `PageRouter.router`, when they are mounted."""


@dataclass(frozen=True, slots=True)
class FeatureParts:
    """What a feature offers: routes under the prefix of the whole, pages, and ways to get tokens at `/token`."""

    name: str
    router: APIRouter
    pages: BuildPages | None = None
    """Called only where the application has pages."""
    links: Sequence[tuple[str, str]] = ()
    """Entries of the pages' navigation: a label that is in the catalogues, and a path below the pages' prefix."""
    step_up: StepUp | None = None
    """How a page asks once more for a proof. At most one feature offers it."""
    grants: Mapping[str, Grant] = field(default_factory=dict)
    """By their `grant_type`."""


class Feature(Protocol):
    """Something an application switches on."""

    def build(self, tools: Tools, core: Core) -> FeatureParts:
        """Return the feature's parts, made of what it is given."""
        ...
