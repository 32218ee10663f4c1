"""What may be changed of oneself."""

from pydantic import BaseModel

from latchstring.core.accounts.schemas import Name
from latchstring.foundation.web.openapi import example


class ProfileChanges(BaseModel):
    """New names; what is left out, or null, stays."""

    model_config = example({"first_name": "Augusta Ada"})

    first_name: Name | None = None
    last_name: Name | None = None
