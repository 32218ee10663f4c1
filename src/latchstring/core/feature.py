"""What a feature gets, and what it offers.

A feature is a small object. `Auth` calls its `build` once and mounts the room that comes back; it knows no feature
by name, and features know nothing of each other. The built-in ones come through this same door.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from fastapi import APIRouter

from latchstring.core.accounts.actions import Accounts
from latchstring.core.sessions.actions import Sessions
from latchstring.core.sessions.answer import SignedInAnswer
from latchstring.core.sessions.feed import RevocationFeed
from latchstring.core.sessions.grants import Grant
from latchstring.core.sessions.guard import Guard
from latchstring.core.sessions.page_edge import PageEdge
from latchstring.core.sign_in.actions import SignIn
from latchstring.foundation.clock import Clock
from latchstring.foundation.database import Database
from latchstring.foundation.limits import Limits
from latchstring.foundation.passwords import PasswordHasher
from latchstring.foundation.web.edge import Edge


@dataclass(frozen=True, slots=True)
class Foundation:
    """The tools a feature may use."""

    database: Database
    clock: Clock
    passwords: PasswordHasher
    limits: Limits
    edge: Edge


@dataclass(frozen=True, slots=True)
class Core:
    """What every feature may build on."""

    accounts: Accounts
    sessions: Sessions
    sign_in: SignIn
    guard: Guard
    feed: RevocationFeed
    signed_in_answer: SignedInAnswer
    page_edge: PageEdge | None = None
    """What pages are built on, where they are switched on."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a feature offers: routes under the prefix of the whole, pages, and ways to get tokens at `/token`."""

    name: str
    router: APIRouter
    pages: APIRouter | None = None
    """Made by `page_edge.router`, where there is one."""
    grants: Mapping[str, Grant] = field(default_factory=dict)
    """By their `grant_type`."""


class Feature(Protocol):
    """Something an application switches on."""

    def build(self, foundation: Foundation, core: Core) -> Room:
        """Return the feature's room, made of what it is given."""
        ...
