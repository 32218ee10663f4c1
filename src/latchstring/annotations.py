"""Keep FastAPI from filling the types we export from a request.

    InstanceOnly      base class of our values: Pydantic accepts instances, and never builds one from data
    NotFromRequest    marks a parameter that only code may fill: FastAPI refuses to declare it

FastAPI reads every parameter that is not a dependency from the body or the query string. `user: User | None = None`
would let a visitor write the user, and `Depends(fresh)`, without its call, would read `minutes` from the query string.
"""

import inspect
from dataclasses import dataclass, field
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from latchstring.errors import ConfigurationError

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class NotFromRequest:
    """Marks a parameter: `minutes: Annotated[float, NotFromRequest("fresh is missing its call: …")]`.

    When a route is declared, FastAPI asks Pydantic for the schema of each parameter of a dependency. This marker raises
    `ConfigurationError` with `sentence` at that moment.
    """

    sentence: str = field(repr=False)

    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> NoReturn:
        """Raise `ConfigurationError`."""
        # At declaration, not at the first request: a hole that only shows under attack would reach production.
        raise ConfigurationError(self.sentence)


class _ConstructorSignature:
    """The signature of a class for `inspect.signature`, whose parameters no request can fill."""

    def __get__(self, _instance: object, owner: type) -> inspect.Signature:
        refused = NotFromRequest(
            f"{owner.__name__} is not a dependency: FastAPI would read it from the request. For the signed-in user "
            "write CurrentUser, or OptionalUser if visitors may be signed out."
        )
        # `Depends()` without an argument calls the annotated class: FastAPI would fill its fields from the query.
        own = inspect.signature(owner.__init__)  # type: ignore[misc]  # of this very class, not of a base class
        _self, *parameters = own.parameters.values()
        return own.replace(
            parameters=[each.replace(annotation=Annotated[each.annotation, refused]) for each in parameters]
        )


class InstanceOnly:
    """A value that only code can make: no request fills it, as a parameter or as a field of a body's model.

    Routes can return it. Its JSON and its OpenAPI schema are those of any dataclass.
    """

    __slots__ = ()
    __signature__ = _ConstructorSignature()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401 -- as Pydantic declares it
        """Return the dataclass's schema, preceded by a check that accepts instances only."""

        def instance(value: _Value) -> _Value:
            # Otherwise a body `{"roles": ["admin"], …}` becomes a User, and the visitor is whoever they wrote.
            if not isinstance(value, cls):
                raise PydanticCustomError("instance_only", "a request can't contain a {name}", {"name": cls.__name__})
            return value

        # `before`: the check must run on the raw input, ahead of the schema that would build an instance from it.
        return core_schema.no_info_before_validator_function(instance, handler(source))
