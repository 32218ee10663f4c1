"""Issue the tokens of an active session: call the application's claims hook, and sign both tokens."""

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
"""An application's function that returns the additional claims of a user's access tokens."""


@dataclass(frozen=True, slots=True)
class HookClaims:
    """The claims that an application's hook returned, and the user it was called with."""

    user: User
    claims: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SignedIn:
    """An active session, its user, and the tokens of its current generation."""

    user: User
    session: Session
    tokens: TokenPair


class TokenIssuer:
    """Issues the tokens of a session's current generation."""

    def __init__(self, tokens: Tokens, feed: RevocationFeed, *, claims: ClaimsHook | None) -> None:
        self._tokens = tokens
        self._feed = feed
        self._claims = claims

    @property
    def has_hook(self) -> bool:
        """Whether the application has a claims hook."""
        return self._claims is not None

    async def claims_of(self, user: User) -> HookClaims:
        """Call the application's claims hook. Call this outside of transactions: no connection may be held meanwhile.

        Raises:
            ConfigurationError: the hook returned claims that no token can carry.
        """
        return HookClaims(user, custom_claims(await self._claims(user)) if self._claims else NO_CLAIMS)

    async def issue(
        self, user: User, session: Session, proven: Proven, *, hook_claims: HookClaims | None = None
    ) -> SignedIn:
        """Sign both tokens of the session's current generation. The same row and proof always give the same claims.

        Args:
            user: the user as it is now.
            session: the session as it is now.
            proven: the proof of the client that gets the tokens. Never another client's: a thief who shares the session
                must not get the owner's fresh proof.
            hook_claims: the application's own claims, if the hook has been called already.
        """
        # The hook was called before the transaction. If the user has changed since, its claims may be out of date.
        if hook_claims is None or hook_claims.user != user:
            hook_claims = await self.claims_of(user)
        # From the row and not from the clock: a repeated response must have the same claims. A proof given during the
        # generation is later than its beginning, and `auth_time` must not be later than `iat`.
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
        bearer = _refresh_claims(session, proven, issued_at_unix=issued_at)
        if not self._feed.knows_epoch(session.epoch):
            # Everyone has just been signed out, perhaps because the key that would sign these tokens was stolen.
            await self._tokens.reload_keys()
        # In a thread: two RSA signatures take 2 ms, which would block the event loop. The library releases the GIL.
        tokens = await asyncio.to_thread(self._tokens.issue, caller, bearer)
        return SignedIn(user=user, session=session, tokens=tokens)


def _refresh_claims(session: Session, proven: Proven, *, issued_at_unix: int) -> RefreshClaims:
    return RefreshClaims(
        user_id=session.user_id,
        session_id=session.id,
        issued_at_unix=issued_at_unix,
        expires_at_unix=int(session.expires_at.timestamp()),
        generation=session.generation,
        proven=proven,
    )
