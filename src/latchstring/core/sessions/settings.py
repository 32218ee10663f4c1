"""Settings of sessions: lifetimes, limits, and how far a worker may lag behind revocations."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class SessionSettings(BaseModel):
    """The settings of sessions."""

    model_config = ConfigDict(frozen=True)

    # With 0, a browser is signed out if it loses a response or its tabs refresh at once. The longer it is, the longer a
    # thief can follow each refresh of the owner.
    refresh_grace_seconds: Annotated[float, Field(ge=0, le=600, allow_inf_nan=False)] = 30
    """Seconds for which the previous refresh token still gets the same successor; 0 switches that off."""
    refresh_repeated_elsewhere: Literal["allow", "end"] = "allow"
    """What happens to a refresh repeated within the grace from another network or User-Agent: `allow` it, or `end` the
    session."""
    session_max_days: Annotated[float, Field(gt=0, le=3650, allow_inf_nan=False)] = 30
    """Days after which a session expires, however often it is refreshed."""
    sessions_per_user: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Maximum number of active sessions per user. One more sign-in revokes the oldest."""
    session_keep_days: Annotated[float, Field(ge=0, le=3650, allow_inf_nan=False)] = 30
    """Days for which an ended session is kept as evidence before it is deleted."""
    fresh_minutes: Annotated[float, Field(gt=0, le=525_600, allow_inf_nan=False)] = 15
    """How recently, in minutes, users must have proved who they are to revoke their other sessions."""
    logout_clears_cache: bool = False
    """Whether a sign-out clears the browser's cache for this origin (`Clear-Site-Data: "cache"`)."""
    # Fail closed: what has been revoked meanwhile is unknown, and a signed-out session must not work through an outage.
    revocation_max_lag_seconds: Annotated[float, Field(ge=1, le=60, allow_inf_nan=False)] = 5
    """Seconds since the last successful poll of revocations began, after which a worker refuses every request (503)."""
