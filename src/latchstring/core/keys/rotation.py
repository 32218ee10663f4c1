"""The life of a key, and what rotating and retiring change in it. Pure; the time is passed in.

    pending    published, so that everyone knows it, but not signing yet
    active     signs, or could
    retired    verifies until the last token it signed has expired
    gone       verifies nothing

A rotation is one change: the new key is published with the time from which it signs, and on the key that signs now it
is written when that ends and when its last token will have expired. From then on every instance follows by its clock,
and nothing is left to be done, or to be left undone by a crash.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from latchstring.core.keys.settings import Algorithm

MAX_CLOCK_SKEW = timedelta(hours=1)
"""More than instances' clocks ever differ: so much longer than its last token a retired key verifies."""

_USUAL_CLOCK_SKEW = timedelta(seconds=10)

KEY_RETENTION = timedelta(days=30)
"""How long a key that is gone can still be looked at."""


class KeyState(StrEnum):
    """Where a key is in its life."""

    PENDING = "pending"
    ACTIVE = "active"
    RETIRED = "retired"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDates:
    """A key as decisions see it."""

    kid: str
    algorithm: Algorithm
    published_at: datetime
    signs_from: datetime
    retired_at: datetime | None
    verifies_until: datetime | None
    token_life: timedelta
    """How long a token lives that it may have signed."""
    cache_life: timedelta = timedelta()
    """How long an answer may be cached that shows it, and not yet the next one."""

    @property
    def is_ended_at_once(self) -> bool:
        """Whether its end was not to wait for anything: no clock that is behind may bring it back."""
        return self.retired_at is not None and self.verifies_until == self.retired_at

    def state(self, *, now: datetime) -> KeyState:
        """Return where it is at `now`; of the dates and the time alone, so that no two instances differ."""
        if self.is_ended_at_once or (self.verifies_until is not None and now >= self.verifies_until):
            return KeyState.GONE
        if self.retired_at is not None and now >= self.retired_at:
            return KeyState.RETIRED
        return KeyState.ACTIVE if now >= self.signs_from else KeyState.PENDING


class KeyConflict(StrEnum):
    """Why a change is not made."""

    UNKNOWN = "there is no such key"
    UNDER_WAY = "a rotation is under way"
    NOTHING_TO_ROTATE = "there is no key yet: run latchstring migrate"
    RETIRED_ALREADY = "it is retired already"
    GONE_ALREADY = "it is gone already"


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What is to be written: dates that change and, where there is to be a new key, from when it signs."""

    changed: tuple[KeyDates, ...]
    new_signs_from: datetime | None = None
    new_kid: str | None = None
    """What the new key is called, once it is made."""


def publication_lead(keys: Sequence[KeyDates], *, cache_life: timedelta) -> timedelta:
    """Return how long a new key is published before it signs.

    A cache that got the keys just before may keep them for their whole age, and one behind it as long again; then there
    are clocks that differ a little.
    """
    return 2 * max(cache_life, *(key.cache_life for key in keys), timedelta()) + _USUAL_CLOCK_SKEW


def signing_key(keys: Sequence[KeyDates], *, now: datetime) -> KeyDates | None:
    """Return the key that signs at `now`: the newest active one."""
    active = [key for key in keys if key.state(now=now) is KeyState.ACTIVE]
    if active:
        return max(active, key=_signs_from)
    # None is active yet where the first, or one in an emergency, was made by an instance whose clock is ahead.
    pending = [key for key in keys if key.state(now=now) is KeyState.PENDING]
    return min(pending, key=_signs_from, default=None)


def rotation(keys: Sequence[KeyDates], *, now: datetime, lead: timedelta) -> KeyChange | KeyConflict:
    """Plan a rotation: a new key signs from `now + lead` on, the present one until then."""
    if _pending(keys, now=now):
        return KeyConflict.UNDER_WAY
    signing = [key for key in keys if key.state(now=now) is KeyState.ACTIVE]
    if not signing:
        return KeyConflict.NOTHING_TO_ROTATE
    handover = now + lead
    return KeyChange(changed=tuple(_retiring(key, at=handover) for key in signing), new_signs_from=handover)


def retirement(keys: Sequence[KeyDates], kid: str, *, now: datetime, lead: timedelta) -> KeyChange | KeyConflict:
    """Plan a key's calm end: the signing one hands over as in a rotation, one that is still pending is withdrawn."""
    key = _named(keys, kid)
    if key is None:
        return KeyConflict.UNKNOWN
    match key.state(now=now):
        case KeyState.GONE:
            return KeyConflict.GONE_ALREADY
        case KeyState.RETIRED:
            return KeyConflict.RETIRED_ALREADY
        case KeyState.PENDING if _is_dispensable(key, keys):
            # It verifies for a while all the same: an instance whose clock is ahead may have signed with it already.
            return KeyChange(changed=(_retiring(key, at=now), *_recalled(keys, from_key=key)))
        case KeyState.PENDING | KeyState.ACTIVE:
            return rotation(keys, now=now, lead=lead)


def retirement_at_once(keys: Sequence[KeyDates], kid: str, *, now: datetime) -> KeyChange | KeyConflict:
    """Plan a key's end at once, because it was stolen: every key ends now, and one made now signs from now on.

    Whoever got at one of them, in the database or in a process's memory, got at the pending and the retired ones too.
    """
    # Those as well that are over by the operator's clock, but not yet by that of an instance which is behind.
    living = [key for key in keys if key.state(now=now - MAX_CLOCK_SKEW) is not KeyState.GONE]
    if _named(keys, kid) is None:
        return KeyConflict.UNKNOWN
    if _named(living, kid) is None:
        return KeyConflict.GONE_ALREADY
    return KeyChange(changed=tuple(_ended(key, now=now) for key in living), new_signs_from=now)


def is_due(keys: Sequence[KeyDates], *, now: datetime, max_age: timedelta) -> bool:
    """Tell whether the key that signs is so old that it is time for the next."""
    signing = signing_key(keys, now=now)
    return signing is not None and signing.retired_at is None and now >= signing.signs_from + max_age


def living_longer(
    keys: Sequence[KeyDates], *, now: datetime, token_life: timedelta, cache_life: timedelta = timedelta()
) -> tuple[KeyDates, ...]:
    """Return what changes because tokens, and cached answers, live so long where they are given out.

    No key goes before its last token, and none signs before the last cache knows it, whoever rotates.
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
    return retired_at + token_life + MAX_CLOCK_SKEW


def _ended(key: KeyDates, *, now: datetime) -> KeyDates:
    return replace(key, retired_at=now, verifies_until=now)


def _is_dispensable(pending: KeyDates, keys: Sequence[KeyDates]) -> bool:
    # Another one lasts. None may, where the first, or an emergency's, was made by an instance whose clock is ahead.
    others = [key for key in keys if key != pending]
    return any(key.retired_at is None for key in others) or bool(_recalled(keys, from_key=pending))


def _recalled(keys: Sequence[KeyDates], *, from_key: KeyDates) -> tuple[KeyDates, ...]:
    """Return those that were to hand over to a key that is withdrawn, as they were before.

    They sign, or are pending themselves, where the rotations were made by an instance whose clock is ahead.
    """
    return tuple(
        replace(key, retired_at=None, verifies_until=None)
        for key in keys
        if key.retired_at == from_key.signs_from and not key.is_ended_at_once
    )


def _pending(keys: Sequence[KeyDates], *, now: datetime) -> list[KeyDates]:
    return [key for key in keys if key.state(now=now) is KeyState.PENDING]


def _named(keys: Sequence[KeyDates], kid: str) -> KeyDates | None:
    return next((key for key in keys if key.kid == kid), None)


def _signs_from(key: KeyDates) -> datetime:
    return key.signs_from
