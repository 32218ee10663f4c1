"""A living session to its tokens: the application's claims are asked for, and both tokens signed."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from latchstring.core.accounts.rules import User
from latchstring.core.caller import NO_CLAIMS, Caller, Proven
from latchstring.core.revocations.feed import RevocationFeed
from latchstring.core.sessions.rules import Session
from latchstring.core.tokens.rules import RefreshClaims, custom_claims
from latchstring.core.tokens.tokens import TokenPair, Tokens

ClaimsHook = Callable[[User], Awaitable[Mapping[str, Any]]]
"""An application's function: what a user's access tokens say beside what is ours."""


@dataclass(frozen=True, slots=True)
class HookClaims:
    """What an application's hook said of a user as it was then."""

    user: User
    claims: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A living session, whose it is, and the tokens of its present generation."""

    user: User
    session: Session
    tokens: TokenPair


class TokenIssuer:
    """Issues the tokens of a session's present generation."""

    def __init__(self, tokens: Tokens, feed: RevocationFeed, *, claims: ClaimsHook | None) -> None:
        self._tokens = tokens
        self._feed = feed
        self._claims = claims

    @property
    def has_hook(self) -> bool:
        """Whether the application has a claims hook."""
        return self._claims is not None

    async def claims_of(self, user: User) -> HookClaims:
        """Ask the application's hook, with no connection held.

        Raises:
            ConfigurationError: it said what no token can say.
        """
        return HookClaims(user, custom_claims(await self._claims(user)) if self._claims else NO_CLAIMS)

    async def issue(
        self, user: User, session: Session, proven: Proven, *, hook_claims: HookClaims | None = None
    ) -> SignedIn:
        """Sign both tokens of the session's present generation; the same row and proof give the same claims every time.

        Args:
            user: as it is now.
            session: whose.
            proven: by the client that gets the tokens, and never by another one: a thief who shares the session must
                not be given the owner's fresh proof.
            hook_claims: the application's own claims, where they were asked for already.
        """
        if hook_claims is None or hook_claims.user != user:
            hook_claims = await self.claims_of(user)
        # A proof given within the generation came after its beginning, and a token can't speak of the future.
        issued_at = max(int(session.rotated_at.timestamp()), proven.at_unix)
        caller = Caller(
            user_id=user.id,
            session_id=session.id,
            claims_version=user.claims_version,
            epoch=session.epoch,
            roles=user.roles,
            methods=proven.methods,
            proven_at_unix=proven.at_unix,
            issued_at_unix=issued_at,
            expires_at_unix=int(session.generation_access_expires_at.timestamp()),
            claims=hook_claims.claims,
        )
        bearer = RefreshClaims(
            user_id=user.id,
            session_id=session.id,
            issued_at_unix=issued_at,
            expires_at_unix=int(session.expires_at.timestamp()),
            generation=session.generation,
            proven=proven,
        )
        if not self._feed.knows_epoch(session.epoch):
            # Everyone was signed out a moment ago, perhaps because the key was stolen that would sign these tokens.
            await self._tokens.reload_keys()
        # Two RSA signatures take two milliseconds, in which the loop would serve nobody; a thread lets go of the GIL.
        tokens = await asyncio.to_thread(self._tokens.issue, caller, bearer)
        return SignedIn(user=user, session=session, tokens=tokens)
