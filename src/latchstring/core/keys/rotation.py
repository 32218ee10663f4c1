"""The states of a key, and what a rotation or a retirement changes. Pure; the time is passed in.

    pending    published, so that verifiers have it, but not signing yet
    active     signs, or may sign
    retired    verifies until the last token it signed has expired
    gone       verifies nothing

A rotation is one change. It writes the new key with the time from which it signs, and, on the key that signs now, when
it stops and when its last token will have expired. From then on every instance follows by its clock: there is no
second step that a crash could leave undone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from latchstring.core.keys.settings import Algorithm
from latchstring.foundation.clock import MAX_CLOCK_SKEW

_USUAL_CLOCK_SKEW = timedelta(seconds=10)

KEY_RETENTION = timedelta(days=30)
"""How long the row of a key that is gone is kept, for an operator to see."""


class KeyState(StrEnum):
    """The state of a key."""

    PENDING = "pending"
    ACTIVE = "active"
    RETIRED = "retired"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDates:
    """A key's name, algorithm and dates: the input of the decisions in this module."""

    kid: str
    algorithm: Algorithm
    published_at: datetime
    signs_from: datetime
    retired_at: datetime | None
    verifies_until: datetime | None
    token_life: timedelta
    """The longest lifetime of a token it may have signed."""
    cache_life: timedelta = timedelta()
    """How long a response may be cached that holds this key and not yet the next one."""

    @property
    def is_ended_at_once(self) -> bool:
        """Whether it was retired at once. An ordinary retirement never gives both dates the same value."""
        return self.retired_at is not None and self.verifies_until == self.retired_at

    def state(self, *, now: datetime) -> KeyState:
        """Return the state at `now`, from the dates and the time alone, so that all instances agree."""
        # A stolen key is gone without a look at the time: no clock that is behind may bring it back.
        if self.is_ended_at_once or (self.verifies_until is not None and now >= self.verifies_until):
            return KeyState.GONE
        if self.retired_at is not None and now >= self.retired_at:
            return KeyState.RETIRED
        return KeyState.ACTIVE if now >= self.signs_from else KeyState.PENDING


class KeyConflict(StrEnum):
    """Why a change of keys is refused."""

    UNKNOWN = "there is no such key"
    UNDER_WAY = "a rotation is under way"
    NOTHING_TO_ROTATE = "there is no key yet: run latchstring migrate"
    RETIRED_ALREADY = "the key is retired already"
    GONE_ALREADY = "the key is gone already"


@dataclass(frozen=True, slots=True)
class KeyChange:
    """The changes to write: changed dates and, if a new key is made, from when it signs."""

    changed: tuple[KeyDates, ...]
    new_signs_from: datetime | None = None
    new_kid: str | None = None
    """The `kid` of the new key, once it is made."""


def publication_lead(keys: Sequence[KeyDates], *, cache_life: timedelta) -> timedelta:
    """Return how long a new key is published before it signs."""
    # A cache filled just before the change may keep the keys for their whole age, and a second cache behind it for as
    # long again. The rest is for clocks that differ a little.
    return 2 * max(cache_life, *(key.cache_life for key in keys), timedelta()) + _USUAL_CLOCK_SKEW


def signing_key(keys: Sequence[KeyDates], *, now: datetime) -> KeyDates | None:
    """Return the key that signs at `now`: the newest active key, else the earliest pending one."""
    active = [key for key in keys if key.state(now=now) is KeyState.ACTIVE]
    if active:
        return max(active, key=_signs_from)
    # No key is active yet if the first key, or an emergency's, was made by an instance whose clock is ahead.
    pending = [key for key in keys if key.state(now=now) is KeyState.PENDING]
    return min(pending, key=_signs_from, default=None)


def rotation(keys: Sequence[KeyDates], *, now: datetime, lead: timedelta) -> KeyChange | KeyConflict:
    """Plan a rotation: the present key signs until `now + lead`, and a new key from then on."""
    if _pending(keys, now=now):
        return KeyConflict.UNDER_WAY
    signing = [key for key in keys if key.state(now=now) is KeyState.ACTIVE]
    if not signing:
        return KeyConflict.NOTHING_TO_ROTATE
    handover = now + lead
    return KeyChange(changed=tuple(_retiring(key, at=handover) for key in signing), new_signs_from=handover)


def retirement(keys: Sequence[KeyDates], kid: str, *, now: datetime, lead: timedelta) -> KeyChange | KeyConflict:
    """Plan an ordinary retirement: rotate away from the signing key, or withdraw a pending one."""
    key = _named(keys, kid)
    if key is None:
        return KeyConflict.UNKNOWN
    match key.state(now=now):
        case KeyState.GONE:
            return KeyConflict.GONE_ALREADY
        case KeyState.RETIRED:
            return KeyConflict.RETIRED_ALREADY
        case KeyState.PENDING if _is_dispensable(key, keys):
            # It still verifies for a while: an instance whose clock is ahead may have signed with it already.
            return KeyChange(changed=(_retiring(key, at=now), *_recalled(keys, from_key=key)))
        case KeyState.PENDING | KeyState.ACTIVE:
            return rotation(keys, now=now, lead=lead)


def retirement_at_once(keys: Sequence[KeyDates], kid: str, *, now: datetime) -> KeyChange | KeyConflict:
    """Plan the end of a stolen key: every key ends now, and a new key signs from now on.

    A thief who read one key, in the database or in a process's memory, could read the pending and retired ones too.
    """
    if _named(keys, kid) is None:
        return KeyConflict.UNKNOWN
    if _named(_usable(keys, now=now), kid) is None:
        return KeyConflict.GONE_ALREADY
    return replacement_of_all(keys, now=now)


def replacement_of_all(keys: Sequence[KeyDates], *, now: datetime) -> KeyChange:
    """Plan the end of every key, and a new one that signs from now on."""
    return KeyChange(changed=tuple(_ended(key, now=now) for key in _usable(keys, now=now)), new_signs_from=now)


def is_due(keys: Sequence[KeyDates], *, now: datetime, max_age: timedelta) -> bool:
    """Return whether the signing key has reached its maximum age and no rotation is planned."""
    signing = signing_key(keys, now=now)
    return signing is not None and signing.retired_at is None and now >= signing.signs_from + max_age


def living_longer(
    keys: Sequence[KeyDates], *, now: datetime, token_life: timedelta, cache_life: timedelta = timedelta()
) -> tuple[KeyDates, ...]:
    """Return the keys whose recorded lifetimes of tokens or caches are too short, with the longer ones.

    So no key is gone before its last token expires, and none signs before the last cache has it, even if the rotation
    is made by a process with other settings.
    """
    return tuple(
        _lasting(key, token_life=max(token_life, key.token_life), cache_life=max(cache_life, key.cache_life))
        for key in keys
        if key.state(now=now) is not KeyState.GONE and (key.token_life < token_life or key.cache_life < cache_life)
    )


def _lasting(key: KeyDates, *, token_life: timedelta, cache_life: timedelta) -> KeyDates:
    until = None if key.retired_at is None else _last_token_expires(key.retired_at, token_life)
    return replace(key, token_life=token_life, cache_life=cache_life, verifies_until=until)


def _retiring(key: KeyDates, *, at: datetime) -> KeyDates:
    return replace(key, retired_at=at, verifies_until=_last_token_expires(at, key.token_life))


def _last_token_expires(retired_at: datetime, token_life: timedelta) -> datetime:
    # An hour more than needed where clocks agree. A retired key that verifies too long costs nothing; one that is gone
    # too soon signs honest users out.
    return retired_at + token_life + MAX_CLOCK_SKEW


def _ended(key: KeyDates, *, now: datetime) -> KeyDates:
    return replace(key, retired_at=now, verifies_until=now)


def _is_dispensable(pending: KeyDates, keys: Sequence[KeyDates]) -> bool:
    # The last key must not be withdrawn: nothing could sign. A pending key is the only one if the first key, or an
    # emergency's, was made by an instance whose clock is ahead.
    others = [key for key in keys if key != pending]
    return any(key.retired_at is None for key in others) or bool(_recalled(keys, from_key=pending))


def _recalled(keys: Sequence[KeyDates], *, from_key: KeyDates) -> tuple[KeyDates, ...]:
    """Return the keys that were to hand over to `from_key`, which is withdrawn, with their retirement undone.

    They sign now, or are pending themselves if the rotations were made by an instance whose clock is ahead.
    """
    return tuple(
        replace(key, retired_at=None, verifies_until=None)
        for key in keys
        if key.retired_at == from_key.signs_from and not key.is_ended_at_once
    )


def _usable(keys: Sequence[KeyDates], *, now: datetime) -> list[KeyDates]:
    # Also those that are gone by the operator's clock, but not yet by that of an instance which is behind.
    return [key for key in keys if key.state(now=now - MAX_CLOCK_SKEW) is not KeyState.GONE]


def _pending(keys: Sequence[KeyDates], *, now: datetime) -> list[KeyDates]:
    return [key for key in keys if key.state(now=now) is KeyState.PENDING]


def _named(keys: Sequence[KeyDates], kid: str) -> KeyDates | None:
    return next((key for key in keys if key.kid == kid), None)


def _signs_from(key: KeyDates) -> datetime:
    return key.signs_from
