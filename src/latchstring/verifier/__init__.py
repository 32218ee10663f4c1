"""Verify Latchstring's access tokens in another service, which has no database of ours.

verifier = TokenVerifier(issuer="https://auth.example.com", audience="https://api.example.com")

@app.get("/orders")
async def orders(caller: Annotated[Caller, Depends(verifier)]): ...

    issuer.py      bounded questions to the issuer over HTTP
    keys.py        its public keys, kept as long as it says, and beyond that while it is away
    following.py   what has ended there, where that is followed
    verifier.py    a token to a Caller, or a refusal

Nothing here imports SQLAlchemy or argon2.
"""

from latchstring.core.caller import Caller
from latchstring.verifier.verifier import TokenVerifier

__all__ = ["Caller", "TokenVerifier"]
