"""What registration, login, confirmation and a change of password take."""

from typing import Annotated

from pydantic import BaseModel, Field, SecretStr

from latchstring.core.accounts.schemas import CanonicalEmail, Name

PASSWORD_MIN_LENGTH = 8
PASSWORD_MAX_LENGTH = 256

Password = Annotated[SecretStr, Field(min_length=PASSWORD_MIN_LENGTH, max_length=PASSWORD_MAX_LENGTH)]


class Registration(BaseModel):
    """A new account; the field names are the tutorial's."""

    first_name: Name
    last_name: Name
    email: CanonicalEmail
    password: Password
    password_confirm: Annotated[SecretStr, Field(alias="passwordConfirm", max_length=PASSWORD_MAX_LENGTH)]


class Credentials(BaseModel):
    """Address and password."""

    email: CanonicalEmail
    password: Password


class Confirmation(BaseModel):
    """The password once more."""

    password: Password


class PasswordChange(BaseModel):
    """The password there is, and the one to be."""

    current_password: Password
    new_password: Password
