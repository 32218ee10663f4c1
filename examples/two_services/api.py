"""Orders: an API that verifies access tokens, and has neither users nor a database of them."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI

from latchstring.verifier import Caller, TokenVerifier

ISSUER = os.environ.get("ISSUER", "http://localhost:8000")

verifier = TokenVerifier(
    issuer=ISSUER,
    # Without these two, a sign-out is known here when the access token expires.
    revocations_url=f"{ISSUER}/api/auth/revocations",
    feed_token=os.environ["FEED_TOKEN"],
    allow_http=ISSUER.startswith("http://localhost:"),  # on this machine only
)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncGenerator[None, None]:
    """Have the keys from the start, and follow revocations."""
    async with verifier.running():
        yield


app = FastAPI(title="Orders", lifespan=lifespan)


@app.get("/orders")
async def orders(caller: Annotated[Caller, Depends(verifier)]) -> dict[str, str]:
    """Somebody's orders, who is known by their token alone."""
    return {"orders_of": str(caller.user_id)}
