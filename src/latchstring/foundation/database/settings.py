"""Settings of the database, besides its URL."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

PreparedStatements = Literal["auto", "on", "off"]


class DatabaseSettings(BaseModel):
    """The settings of connections to PostgreSQL."""

    model_config = ConfigDict(frozen=True)

    database_prepared_statements: PreparedStatements = "auto"
    """Whether statements are prepared at the server, which saves time. Behind a pooler that works by transaction they
    must be `off`; `auto` switches them off where it detects a pooler."""
