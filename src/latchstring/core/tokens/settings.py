"""Tokens: for whom they are issued, and how long they live."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MINUTES_PER_YEAR = 525_600


# A token that lives less than a second is dead on arrival: times in tokens are whole seconds.
Minutes = Annotated[float, Field(ge=1 / 60, le=MINUTES_PER_YEAR, allow_inf_nan=False)]


class TokenSettings(BaseModel):
    """How tokens are made."""

    model_config = ConfigDict(frozen=True)

    access_token_expire_minutes: Minutes = 15
    refresh_token_expire_minutes: Minutes = 60
    """Sliding: counted anew at each refresh, up to the session's absolute age."""
    audience: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """`aud`; by default the issuer."""
