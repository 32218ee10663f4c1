"""Who is asking, and how and when they proved it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NoReturn
from uuid import UUID

from latchstring.annotations import InstanceOnly


class Claims(dict[str, Any]):
    """A JSON object that can be read, copied and sent on, and not be changed.

    A caller is remembered for its token: whoever changed a claim would change it for the next request, too.
    """

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("claims can't be changed: the next request has the same")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __copy__(self) -> "Claims":
        return self

    def __deepcopy__(self, _memo: object) -> "Claims":
        return self

    def __reduce__(self) -> tuple[type["Claims"], tuple[dict[str, Any]]]:
        return Claims, (dict(self),)


NO_CLAIMS: Mapping[str, Any] = Claims()


@dataclass(frozen=True, slots=True)
class Proven:
    """How and when the holder of a token proved who they are. It travels with the tokens it was given for."""

    at_unix: int
    """In whole seconds since 1970 (`auth_time`)."""
    methods: tuple[str, ...]
    """`amr` values of RFC 8176."""

    def merged(self, method: str, *, at_unix: int) -> "Proven":
        """Return this and one more proof: a confirmation adds what was proven, and never takes a method away."""
        return Proven(at_unix, tuple(dict.fromkeys((*self.methods, method))))


@dataclass(frozen=True, slots=True)
class Caller(InstanceOnly):
    """The bearer of a valid access token, known from its claims alone: nothing was read to make this."""

    user_id: UUID
    session_id: UUID
    claims_version: int
    epoch: int
    """How often everyone had been signed out when the session was opened."""
    roles: tuple[str, ...]
    methods: tuple[str, ...]
    """How the user proved who they are, as `amr` values of RFC 8176: `pwd`, …"""
    proven_at_unix: int
    """When they did, in seconds since 1970."""
    issued_at_unix: int
    expires_at_unix: int
    claims: Mapping[str, Any] = field(default_factory=lambda: NO_CLAIMS, hash=False)
    """The application's own, by their names; lists are tuples here, and nothing can be changed."""

    @property
    def proven(self) -> Proven:
        """How and when the user proved it, to be handed on to the caller's next tokens."""
        return Proven(self.proven_at_unix, self.methods)

    @property
    def proven_at(self) -> datetime:
        """When the user last proved who they are."""
        return datetime.fromtimestamp(self.proven_at_unix, UTC)
