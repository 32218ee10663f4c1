"""Somebody who has the database and its secret: the private keys, and the tokens that are made with them."""

import asyncio
import time
from dataclasses import dataclass
from uuid import UUID

from latchstring.core.caller import Proven
from latchstring.core.keys import store
from latchstring.core.keys.key_set import KeySet, TokenKey, token_key
from latchstring.core.keys.ring import seal_context
from latchstring.core.tokens.rules import Issuer, Kind, RefreshClaims, access_claims, refresh_claims
from latchstring.core.tokens.tokens import signed
from latchstring.foundation.database import Database
from latchstring.foundation.vault import Vault
from tests.support.forge import EPOCH_AHEAD
from tests.support.issued import a_caller
from tests.support.service import SECRET

ISSUER = Issuer(name="latchstring", audience="latchstring")


@dataclass(frozen=True)
class StolenKey:
    """A private key, and what can be done with it."""

    key: TokenKey

    def access_token(self, *, user_id: UUID, session_id: UUID, age_seconds: int) -> str:
        """Return an access token that was issued so long ago and holds for a quarter of an hour, in any epoch."""
        now = int(time.time())
        caller = a_caller(
            now=now - age_seconds,
            user_id=user_id,
            session_id=session_id,
            epoch=EPOCH_AHEAD,
            expires_at_unix=now + 900,
        )
        return self.signed(Kind.ACCESS, access_claims(caller, generation=1, issuer=ISSUER))

    def refresh_token(self, *, user_id: UUID, session_id: UUID, generation: int, age_seconds: int) -> str:
        """Return a refresh token of a session's generation."""
        now = int(time.time())
        bearer = RefreshClaims(
            user_id=user_id,
            session_id=session_id,
            issued_at_unix=now - age_seconds,
            expires_at_unix=now + 900,
            generation=generation,
            proven=Proven(now - age_seconds, ("pwd",)),
        )
        return self.signed(Kind.REFRESH, refresh_claims(bearer, issuer=ISSUER))

    def signed(self, kind: Kind, claims: dict[str, object]) -> str:
        """Return a token that says whatever it is told to."""
        return signed(KeySet(signing=self.key, verifying={self.key.kid: self.key}), kind, claims)


async def steal(url: str, kid: str) -> StolenKey:
    """Return a key out of the database."""
    database = Database(url)
    try:
        async with database.reading() as connection:
            (row,) = [key for key in await store.all_keys(connection) if key.kid == kid]
    finally:
        await database.close()
    pem = Vault(SECRET).unseal(row.private_sealed, context=seal_context(kid))
    return StolenKey(await asyncio.to_thread(token_key, pem, row.algorithm, name="the stolen key", is_our_own=True))
