"""The body of `PATCH /me`."""

from pydantic import BaseModel

from latchstring.core.accounts.schemas import Name
from latchstring.foundation.web.openapi import example


class ProfileChanges(BaseModel):
    """New names. A name that is missing or null is not changed."""

    model_config = example({"first_name": "Augusta Ada"})

    # Names only. Email, roles and `email_verified` are no fields here: they would be the visitor's own choice.
    first_name: Name | None = None
    last_name: Name | None = None
