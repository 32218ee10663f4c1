"""The whole configuration: one frozen model, the sum of what the packages declare.

    Settings = WebSettings            public URL, client origin, trusted proxies
             + PasswordHashSettings   cost of a password hash
             + KeySettings            signing keys and their rotation
             + TokenSettings          issuer, audience and lifetimes of tokens
             + SessionSettings        lifetimes of sessions
             + LimitSettings          rates of sign-ins, registrations and refreshes
             + DatabaseSettings       prepared statements
             + MetricsSettings        what is counted, and where it can be read
             + the database, the data directory and the secret

It reads nothing. `apps.environment` fills it from the environment; a host application fills it from its own source.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from latchstring.core.keys.settings import KeySettings
from latchstring.core.sessions.rules import Lifetimes
from latchstring.core.sessions.settings import SessionSettings
from latchstring.core.tokens.settings import TokenSettings
from latchstring.errors import ConfigurationError
from latchstring.foundation.database import Engine, postgresql_url
from latchstring.foundation.database.settings import DatabaseSettings
from latchstring.foundation.limits import LimitSettings
from latchstring.foundation.measurements import MetricsSettings
from latchstring.foundation.passwords import PasswordHashSettings
from latchstring.foundation.web.settings import WebSettings

SECRET_MIN_LENGTH = 32
DATABASE_FILE = "latchstring.db"


class PostgresSettings(BaseModel):
    """The tutorial's five variables: set all of them, or none."""

    model_config = ConfigDict(frozen=True)

    postgres_user: str | None = None
    postgres_password: SecretStr | None = None
    postgres_server: str | None = None
    postgres_port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    postgres_db: str | None = None

    @property
    def postgres_url(self) -> str | None:
        """The database URL made of the five variables; None if they are not set."""
        user, password, server, port, database = (getattr(self, name) for name in PostgresSettings.model_fields)
        if password is None:
            return None
        return postgresql_url(
            user=user, password=password.get_secret_value(), server=server, port=port, database=database
        )

    @model_validator(mode="after")
    def _all_or_none(self) -> Self:
        # A forgotten variable must not fall back to SQLite silently: the service would run on an empty database.
        missing = [name.upper() for name in PostgresSettings.model_fields if getattr(self, name) is None]
        if missing and len(missing) < len(PostgresSettings.model_fields):
            raise ValueError(f"{', '.join(missing)} must be set as well: PostgreSQL needs all five variables")
        return self


class Settings(
    WebSettings,
    PasswordHashSettings,
    TokenSettings,
    KeySettings,
    SessionSettings,
    LimitSettings,
    DatabaseSettings,
    MetricsSettings,
    PostgresSettings,
):
    """Every setting there is."""

    # `extra`: a misspelt setting must not leave its default in force. `hide_input`: a value may be a secret.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    pages: bool = True
    """Whether the server has HTML pages beside its JSON routes."""
    site_name: Annotated[str, Field(min_length=1, max_length=60)] = "Latchstring"
    """The name of the service on the server's pages."""
    data_dir: Path = Path("latchstring-data")
    """The directory of the server's SQLite database and secret, unless other settings provide them."""
    shutdown_drain_seconds: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 5
    """Seconds for which a server that was told to stop (SIGTERM) still serves, while `/readyz` says 503; 0: at once."""
    # A SecretStr, because a URL usually contains the password.
    database_url: SecretStr | None = None
    """`sqlite+aiosqlite:///…`, `postgresql+psycopg://…` or `postgresql+asyncpg://…`."""
    secret: SecretStr | None = None
    """Encrypts private keys at rest; at least 32 characters."""
    previous_secret: SecretStr | None = None
    """The previous secret. Keys encrypted under it can be read, and are encrypted under `secret` at the next start."""

    @property
    def lifetimes(self) -> Lifetimes:
        """How long tokens, sessions and the grace last."""
        return Lifetimes(
            access=timedelta(minutes=self.access_token_expire_minutes),
            refresh=timedelta(minutes=self.refresh_token_expire_minutes),
            session=timedelta(days=self.session_max_days),
            grace=timedelta(seconds=self.refresh_grace_seconds),
        )

    @property
    def database(self) -> str:
        """The database URL: `database_url`, the five variables' URL, or SQLite in the data directory."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return self.postgres_url or f"sqlite+aiosqlite:///{self.data_dir / DATABASE_FILE}"

    @property
    def keys_from_environment(self) -> bool:
        """Whether the signing key comes from the settings instead of the database."""
        return self.jwt_private_key is not None

    @property
    def issuer(self) -> str:
        """The `iss` claim of every token (RFC 7519, 4.1.1)."""
        return self.public_url or "latchstring"

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        # A weak configuration must not start (CVE-2021-40494 is a default secret that stayed).
        for name in ("secret", "previous_secret"):
            secret = getattr(self, name)
            if secret is not None and len(secret.get_secret_value()) < SECRET_MIN_LENGTH:
                raise ValueError(f"LATCHSTRING_{name.upper()} must have at least {SECRET_MIN_LENGTH} characters")
        if self.jwt_private_key is None and (self.jwt_public_key or self.jwt_extra_public_keys):
            raise ValueError("JWT_PRIVATE_KEY must be set as well: a public key alone signs nothing")
        # Otherwise an access token could outlive the refresh token, or a refresh token its session.
        if self.access_token_expire_minutes > self.refresh_token_expire_minutes:
            raise ValueError("ACCESS_TOKEN_EXPIRE_MINUTES must not be more than REFRESH_TOKEN_EXPIRE_MINUTES")
        if self.refresh_token_expire_minutes > self.session_max_days * 24 * 60:
            raise ValueError("REFRESH_TOKEN_EXPIRE_MINUTES must not be more than LATCHSTRING_SESSION_MAX_DAYS")
        return self


def sentences(error: ValidationError, *, name: Callable[[str], str]) -> Iterator[str]:
    """Return a sentence for each invalid setting, without its value; `name` maps a field to the name to print."""
    # Without the input: these sentences are printed and logged, and the input may be a secret.
    for problem in error.errors(include_input=False, include_url=False):
        message = problem["msg"].removeprefix("Value error, ")
        if problem["loc"]:
            yield f"{name(str(problem['loc'][0]))}: {message[0].lower()}{message[1:]}"
        else:
            yield message


def settings_with(settings: Settings, *, database: str | Engine, secret: str | None) -> Settings:
    """Return settings together with what an application passes to `Auth` beside them.

    Raises:
        ConfigurationError: a value is given twice, or the secret is weak.
    """
    in_settings = settings.database_url is not None or settings.postgres_url is not None
    # Two values that may differ are refused: whichever won, the other one would be ignored silently.
    if in_settings and database != settings.database:
        raise ConfigurationError("the database is given twice: pass it to Auth, and leave it out of the settings")
    if secret is None:
        return settings
    if settings.secret is not None:
        raise ConfigurationError("the secret is given twice: pass it to Auth, and leave it out of the settings")
    # Validated again, and not by `model_copy`, which would skip the secret's minimum length.
    given = settings.model_dump(exclude_unset=True) | {"secret": SecretStr(secret)}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        raise ConfigurationError("; ".join(sentences(error, name=str))) from None
