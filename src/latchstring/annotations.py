"""What keeps FastAPI from filling our names from a request.

    InstanceOnly      the base of our values: Pydantic takes instances of it, and never builds one from data
    NotFromRequest    marks a parameter that only code may fill: FastAPI can't declare it

FastAPI reads every parameter that is not a dependency from the body or the query string. `user: User | None = None`
would let a visitor write the user, and `Depends(fresh)`, the call forgotten, would ask them for the minutes.
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

    FastAPI asks Pydantic how to read each parameter of a dependency when a route is declared. This one raises
    `ConfigurationError` with the sentence instead.
    """

    sentence: str = field(repr=False)

    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> NoReturn:
        """Refuse."""
        raise ConfigurationError(self.sentence)


class _ConstructorSignature:
    """The signature of a class, for `inspect.signature`: the real one, with no parameter a request could fill."""

    def __get__(self, _instance: object, owner: type) -> inspect.Signature:
        refused = NotFromRequest(
            f"{owner.__name__} is no dependency: FastAPI would read it from the request. For the user who is asking, "
            "write CurrentUser, or OptionalUser where a visitor may be signed out."
        )
        own = inspect.signature(owner.__init__)  # type: ignore[misc]  # of this very class, whatever it inherits
        _self, *parameters = own.parameters.values()
        return own.replace(
            parameters=[each.replace(annotation=Annotated[each.annotation, refused]) for each in parameters]
        )


class InstanceOnly:
    """A value that code makes, and no request: not as a parameter, and not inside the model of a body.

    Routes can return it, with the same JSON and the same OpenAPI schema as any dataclass.
    """

    __slots__ = ()
    __signature__ = _ConstructorSignature()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401 -- as Pydantic declares it
        """Return the schema of the dataclass, behind a check that refuses everything but instances."""

        def instance(value: _Value) -> _Value:
            if not isinstance(value, cls):
                raise PydanticCustomError("instance_only", "a request can't contain a {name}", {"name": cls.__name__})
            return value

        return core_schema.no_info_before_validator_function(instance, handler(source))
