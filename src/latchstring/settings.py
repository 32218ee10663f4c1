"""The whole configuration: one frozen model, the sum of what the rooms declare.

    Settings = WebSettings        where the service stands on the web
             + PasswordHashSettings   how passwords are hashed
             + KeySettings        which keys sign
             + TokenSettings      for whom tokens are issued, and how long they live
             + SessionSettings    how long sessions live
             + LimitSettings      how often what may be tried
             + the database, the data folder and the secret

It reads nothing: `apps.environment` fills it from the environment, a host application from where it likes.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from latchstring.core.keys.settings import KeySettings
from latchstring.core.sessions.settings import SessionSettings
from latchstring.core.tokens.settings import TokenSettings
from latchstring.foundation.database import postgresql_url
from latchstring.foundation.limits import LimitSettings
from latchstring.foundation.passwords import PasswordHashSettings
from latchstring.foundation.web.settings import WebSettings

SECRET_MIN_LENGTH = 32
DATABASE_FILE = "latchstring.db"


class PostgresSettings(BaseModel):
    """The tutorial's five variables; all of them, or none."""

    model_config = ConfigDict(frozen=True)

    postgres_user: str | None = None
    postgres_password: SecretStr | None = None
    postgres_server: str | None = None
    postgres_port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    postgres_db: str | None = None

    @property
    def postgres_url(self) -> str | None:
        """The URL the five make, or None where they are not set."""
        user, password, server, port, database = (getattr(self, name) for name in PostgresSettings.model_fields)
        if password is None:
            return None
        return postgresql_url(
            user=user, password=password.get_secret_value(), server=server, port=port, database=database
        )

    @model_validator(mode="after")
    def _all_or_none(self) -> Self:
        missing = [name.upper() for name in PostgresSettings.model_fields if getattr(self, name) is None]
        if missing and len(missing) < len(PostgresSettings.model_fields):
            raise ValueError(f"{', '.join(missing)} must be set as well: PostgreSQL needs all five variables")
        return self


class Settings(
    WebSettings, PasswordHashSettings, TokenSettings, KeySettings, SessionSettings, LimitSettings, PostgresSettings
):
    """Everything that can be set."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    pages: bool = True
    """Whether the server has pages for people, beside its JSON routes."""
    site_name: Annotated[str, Field(min_length=1, max_length=60)] = "Latchstring"
    """What the server's pages call it."""
    data_dir: Path = Path("latchstring-data")
    """Where the server keeps its SQLite database and its secret, unless they are elsewhere."""
    database_url: SecretStr | None = None
    """`sqlite+aiosqlite:///…`, `postgresql+psycopg://…` or `postgresql+asyncpg://…`."""
    secret: SecretStr | None = None
    """Seals private keys at rest; at least 32 characters."""
    previous_secret: SecretStr | None = None
    """The one before: what it sealed is opened still, and sealed anew under `secret` at the next start."""

    @property
    def database(self) -> str:
        """The database's URL: the one given, the one of the five variables, or SQLite in the data folder."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return self.postgres_url or f"sqlite+aiosqlite:///{self.data_dir / DATABASE_FILE}"

    @property
    def keys_from_environment(self) -> bool:
        """Whether the signing key is given, and the database holds none."""
        return self.jwt_private_key is not None

    @property
    def issuer(self) -> str:
        """`iss` of every token."""
        return self.public_url or "latchstring"

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        for name in ("secret", "previous_secret"):
            secret = getattr(self, name)
            if secret is not None and len(secret.get_secret_value()) < SECRET_MIN_LENGTH:
                raise ValueError(f"LATCHSTRING_{name.upper()} must have at least {SECRET_MIN_LENGTH} characters")
        if self.jwt_private_key is None and (self.jwt_public_key or self.jwt_extra_public_keys):
            raise ValueError("JWT_PRIVATE_KEY must be set as well: a public key alone signs nothing")
        if self.access_token_expire_minutes > self.refresh_token_expire_minutes:
            raise ValueError("ACCESS_TOKEN_EXPIRE_MINUTES must not be more than REFRESH_TOKEN_EXPIRE_MINUTES")
        if self.refresh_token_expire_minutes > self.session_max_days * 24 * 60:
            raise ValueError("REFRESH_TOKEN_EXPIRE_MINUTES must not be more than LATCHSTRING_SESSION_MAX_DAYS")
        return self


def sentences(error: ValidationError, *, name: Callable[[str], str]) -> Iterator[str]:
    """Say what is wrong with which setting, without repeating a value; `name` is how the reader calls a field."""
    for problem in error.errors(include_input=False, include_url=False):
        message = problem["msg"].removeprefix("Value error, ")
        if problem["loc"]:
            yield f"{name(str(problem['loc'][0]))}: {message[0].lower()}{message[1:]}"
        else:
            yield message
