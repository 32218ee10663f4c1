"""What may be changed of oneself."""

from pydantic import BaseModel

from latchstring.core.accounts.schemas import Name


class ProfileChanges(BaseModel):
    """New names; what is left out, or null, stays."""

    first_name: Name | None = None
    last_name: Name | None = None
