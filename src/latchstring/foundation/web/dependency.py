"""The base of our dependencies: each is a security scheme of the OpenAPI document and its own `Depends`."""

from typing import Any, ClassVar, NoReturn

from fastapi.params import Depends
from fastapi.security.base import SecurityBase

from latchstring.errors import ConfigurationError


class SecurityDependency(SecurityBase, Depends):
    """A dependency that FastAPI runs in every position of a signature, or refuses when the route is declared.

    If `Depends` is forgotten, as in `caller=fresh(minutes=5)`, FastAPI would treat another object as the default value
    of a query parameter, and let everybody in. A subclass is callable with the connection.
    """

    instead: ClassVar[str]
    """What to write in a position where it can't be used; the end of the error message."""

    @property
    def dependency(self) -> Any:  # noqa: ANN401 -- as FastAPI declares its field
        """This object, which FastAPI calls."""
        return self

    # The dataclass's own methods use its fields, one of which is this object: they would recurse without end.
    __eq__ = object.__eq__
    __hash__ = object.__hash__
    __repr__ = object.__repr__

    def __get_pydantic_core_schema__(self, _source: object, _handler: object) -> NoReturn:
        """Refuse positions in which FastAPI reads a value from the request: a union, a list, the model of a body.

        Raises:
            ConfigurationError: always. Pydantic calls this when the route or the model is declared.
        """
        raise ConfigurationError(f"{self} must be the whole annotation of a parameter. {self.instead}")
