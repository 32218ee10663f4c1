"""Settings of tokens: their audience and lifetimes."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MINUTES_PER_YEAR = 525_600


# At least a second: times in tokens are whole seconds, so that a shorter lifetime would be none.
Minutes = Annotated[float, Field(ge=1 / 60, le=MINUTES_PER_YEAR, allow_inf_nan=False)]


class TokenSettings(BaseModel):
    """The audience and the lifetimes of tokens."""

    model_config = ConfigDict(frozen=True)

    access_token_expire_minutes: Minutes = 15
    refresh_token_expire_minutes: Minutes = 60
    """Sliding: each refresh begins it again, up to the session's absolute age."""
    audience: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """The claim `aud`; the issuer by default."""
