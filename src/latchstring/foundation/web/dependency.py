"""The base of our dependencies: each is a security scheme of the OpenAPI document, and its own `Depends`."""

from typing import Any, ClassVar, NoReturn

from fastapi.params import Depends
from fastapi.security.base import SecurityBase

from latchstring.errors import ConfigurationError


class SecurityDependency(SecurityBase, Depends):
    """A dependency that FastAPI runs wherever it stands in a signature, or refuses to declare.

    With `Depends` forgotten, as in `caller=fresh(minutes=5)`, FastAPI would take any other object for the default value
    of a query parameter, and let everybody in. A subclass is callable with the connection.
    """

    instead: ClassVar[str]
    """What to write where it can't stand."""

    @property
    def dependency(self) -> Any:  # noqa: ANN401 -- as FastAPI declares its field
        """This object: what FastAPI calls."""
        return self

    # Those of the dataclass compare its fields, one of which is this object: they would never end.
    __eq__ = object.__eq__
    __hash__ = object.__hash__
    __repr__ = object.__repr__

    def __get_pydantic_core_schema__(self, _source: object, _handler: object) -> NoReturn:
        """Refuse a place where FastAPI reads the request and runs nothing: a union, a list, the model of a body.

        Raises:
            ConfigurationError: always. Pydantic asks when the route, or the model, is declared.
        """
        raise ConfigurationError(f"{self} must be the whole annotation of a parameter. {self.instead}")
