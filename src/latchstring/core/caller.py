"""The caller: the user behind an access token, and how and when they proved who they are. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NoReturn
from uuid import UUID

from latchstring.annotations import InstanceOnly


class Claims(dict[str, Any]):
    """A read-only JSON object."""

    # Verified tokens are cached with their `Caller`. A route that changed a claim would change it for every later
    # request with that token.
    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("claims can't be changed, because later requests share them: copy them with dict()")

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
    """How and when a user proved who they are: the claims `auth_time` and `amr` of their tokens."""

    at_unix: int
    """`auth_time`, in whole seconds since 1970."""
    methods: tuple[str, ...]
    """`amr` values of RFC 8176."""

    @property
    def at(self) -> datetime:
        """When the user last proved who they are."""
        return datetime.fromtimestamp(self.at_unix, UTC)

    def merged(self, method: str, *, at_unix: int) -> "Proven":
        """Return this proof with one more method, proven at `at_unix`."""
        # Methods are added and never replaced: a confirmation by password must not lower a session that was created
        # with a second factor (CVE-2024-45042, Kratos).
        return Proven(at_unix, tuple(dict.fromkeys((*self.methods, method))))


@dataclass(frozen=True, slots=True)
class Caller(InstanceOnly):
    """The user behind a valid access token, as its claims say. No I/O."""

    user_id: UUID
    session_id: UUID
    claims_version: int
    epoch: int
    """The epoch in force when the session was created. Signing everyone out begins the next one."""
    roles: tuple[str, ...]
    methods: tuple[str, ...]
    """How the user proved who they are, as `amr` values of RFC 8176: `pwd`, …"""
    proven_at_unix: int
    """When they did (`auth_time`), in whole seconds since 1970."""
    issued_at_unix: int
    expires_at_unix: int
    claims: Mapping[str, Any] = field(default_factory=lambda: NO_CLAIMS, hash=False)
    """The application's own claims by name. Read-only: lists are tuples."""

    @property
    def proven(self) -> Proven:
        """How and when the user proved who they are. The caller's next tokens get the same."""
        return Proven(self.proven_at_unix, self.methods)

    @property
    def proven_at(self) -> datetime:
        """When the user last proved who they are."""
        return self.proven.at
