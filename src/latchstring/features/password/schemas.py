"""The bodies of registration, login, confirmation and password change."""

from typing import Annotated

from pydantic import BaseModel, Field, SecretStr

from latchstring.core.accounts.schemas import CanonicalEmail, Name
from latchstring.foundation.web.openapi import example

# NIST SP 800-63B-4 and ASVS ask for at least 8 characters, and for no rules about which ones.
PASSWORD_MIN_LENGTH = 8
# An upper bound, because the time of a hash grows with the password (CVE-2013-1443).
PASSWORD_MAX_LENGTH = 256

# A SecretStr, so that no repr, log line or traceback shows it.
Password = Annotated[SecretStr, Field(min_length=PASSWORD_MIN_LENGTH, max_length=PASSWORD_MAX_LENGTH)]


class Registration(BaseModel):
    """A new account. The field names are the tutorial's."""

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
    """Email and password."""

    model_config = example({"email": "ada@example.com", "password": "an old song, sung twice"})

    email: CanonicalEmail
    password: Password


class Confirmation(BaseModel):
    """The password of the signed-in user."""

    model_config = example({"password": "an old song, sung twice"})

    password: Password


class PasswordChange(BaseModel):
    """The current password and the new one."""

    model_config = example({"current_password": "an old song, sung twice", "new_password": "a new song, sung once"})

    current_password: Password
    new_password: Password
