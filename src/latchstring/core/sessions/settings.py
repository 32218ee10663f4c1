"""How long sessions live, and how stale a worker's knowledge of their end may be."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class SessionSettings(BaseModel):
    """The sessions room's settings."""

    model_config = ConfigDict(frozen=True)

    refresh_grace_seconds: Annotated[float, Field(ge=0, le=600, allow_inf_nan=False)] = 30
    """How long the previous refresh token is answered with the same successor again; 0 switches that off."""
    refresh_repeated_elsewhere: Literal["allow", "end"] = "allow"
    """What a refresh repeated within the grace from another network or User-Agent does: it is answered, or `end`s the
    session."""
    session_max_days: Annotated[float, Field(gt=0, le=3650, allow_inf_nan=False)] = 30
    """The age at which a session ends, however often it was refreshed."""
    sessions_per_user: Annotated[int, Field(ge=1, le=10_000)] = 100
    """How many sessions a user may have; one more sign-in ends the oldest."""
    session_keep_days: Annotated[float, Field(ge=0, le=3650, allow_inf_nan=False)] = 30
    """How long an ended session is kept as evidence before it is deleted."""
    fresh_minutes: Annotated[float, Field(gt=0, le=525_600, allow_inf_nan=False)] = 15
    """How recently the user must have proved who they are to end all their other sessions."""
    logout_clears_cache: bool = False
    """Whether a sign-out asks the browser to forget what it has cached of us (`Clear-Site-Data: "cache"`)."""
    revocation_max_lag_seconds: Annotated[float, Field(ge=1, le=60, allow_inf_nan=False)] = 5
    """A worker whose last good look at the database began longer ago than this lets nobody in (503)."""
