"""What registration, login, confirmation and a change of password take."""

from typing import Annotated

from pydantic import BaseModel, Field, SecretStr

from latchstring.core.accounts.schemas import CanonicalEmail, Name
from latchstring.foundation.web.openapi import example

PASSWORD_MIN_LENGTH = 8
PASSWORD_MAX_LENGTH = 256

Password = Annotated[SecretStr, Field(min_length=PASSWORD_MIN_LENGTH, max_length=PASSWORD_MAX_LENGTH)]


class Registration(BaseModel):
    """A new account; the field names are the tutorial's."""

    model_config = example(
        {
            "first_name": "Ada",
            "last_name": "Lovelace",
            "email": "ada@example.com",
            "password": "an old song, sung twice",
            "passwordConfirm": "an old song, sung twice",
        }
    )

    first_name: Name
    last_name: Name
    email: CanonicalEmail
    password: Password
    password_confirm: Annotated[SecretStr, Field(alias="passwordConfirm", max_length=PASSWORD_MAX_LENGTH)]


class Credentials(BaseModel):
    """Address and password."""

    model_config = example({"email": "ada@example.com", "password": "an old song, sung twice"})

    email: CanonicalEmail
    password: Password


class Confirmation(BaseModel):
    """The password once more."""

    model_config = example({"password": "an old song, sung twice"})

    password: Password


class PasswordChange(BaseModel):
    """The password there is, and the one to be."""

    model_config = example({"current_password": "an old song, sung twice", "new_password": "a new song, sung once"})

    current_password: Password
    new_password: Password
