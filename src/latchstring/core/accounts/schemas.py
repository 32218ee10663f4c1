"""Users in responses, and the fields of users in requests."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from latchstring.core.accounts.rules import EMAIL_MAX_LENGTH, NAME_MAX_LENGTH, User, canonical_email
from latchstring.foundation.web.openapi import example

CanonicalEmail = Annotated[
    str,
    Field(max_length=EMAIL_MAX_LENGTH, json_schema_extra={"format": "email"}, examples=["ada@example.com"]),
    AfterValidator(canonical_email),
]
"""An email: accepts any spelling, and returns the canonical one."""

Name = Annotated[
    str,
    # A line break in a name would end a header line in a mail to the user (header injection).
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=NAME_MAX_LENGTH, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$"
    ),
]


class UserResponse(BaseModel):
    """A user, as in every response. Never includes the password or its hash."""

    model_config = example(
        {
            "id": "01a20ab4-9a92-7632-bd4a-562e58e1cd52",
            "first_name": "Ada",
            "last_name": "Lovelace",
            "email": "ada@example.com",
            "created_at": "2026-11-23T23:18:57.938658Z",
            "email_verified": False,
        }
    )

    id: UUID
    first_name: str
    last_name: str
    email: str
    created_at: datetime
    email_verified: bool

    @classmethod
    def of(cls, user: User) -> Self:
        """Return the public fields of `user`."""
        return cls(
            id=user.id,
            first_name=user.first_name,
            last_name=user.last_name,
            email=user.email,
            created_at=user.created_at,
            email_verified=user.email_verified,
        )
