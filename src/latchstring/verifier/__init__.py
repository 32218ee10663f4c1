"""Verify Latchstring's access tokens in another service, without access to its database.

    verifier = TokenVerifier(issuer="https://auth.example.com", audience="https://api.example.com")

    @app.get("/orders")
    async def orders(caller: Annotated[Caller, Depends(verifier)]): ...

    issuer.py       bounded HTTP requests to the issuer
    keys.py         its public keys, cached as long as it says, and longer while it can't be reached
    revocations.py  its revoked set, if a revocation feed is configured
    verifier.py     TokenVerifier: a token to a Caller, or a refusal

Nothing here imports SQLAlchemy or argon2.
"""

from latchstring.core.caller import Caller
from latchstring.verifier.verifier import TokenVerifier

__all__ = ["Caller", "TokenVerifier"]
