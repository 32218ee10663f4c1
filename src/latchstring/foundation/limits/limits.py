"""Limits: counts attempts in sliding windows, and refuses those beyond the rates."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address, ip_network
from uuid import UUID

from latchstring.errors import Code, Refused
from latchstring.foundation.clock import Clock, new_id
from latchstring.foundation.database import Connection, lock_each
from latchstring.foundation.limits import store
from latchstring.foundation.limits.rates import Rate
from latchstring.foundation.limits.settings import LimitSettings
from latchstring.foundation.measurements import UNMETERED, Meter, Metric

_Windows = Mapping[str, tuple[str, Rate]]
"""The windows of an attempt: the limit's name, and the key and rate of its window."""

_IPV6_PREFIX = 64
_TRIED_SLOTS = 100
_FULL_IS_REMEMBERED = timedelta(seconds=1)
# An attacker can fill one window per address they have: the memory for full windows must stay bounded.
_MAX_FULL_WINDOWS = 4096


@dataclass(frozen=True, slots=True)
class Reservation:
    """The slots that one attempt has taken."""

    ids: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class _Full:
    frees_at: datetime
    remembered_until: datetime


class Limits:
    """Counts attempts, and refuses those beyond the rates."""

    def __init__(self, settings: LimitSettings, clock: Clock, *, meter: Meter = UNMETERED) -> None:
        self._clock = clock
        self._meter = meter
        self._is_on = settings.limits
        self._account = settings.limit_account
        self._address = settings.limit_address
        self._register = settings.limit_register
        self.refresh = settings.limit_refresh if settings.limits else None
        """How often one session may be refreshed; counted in the session's row."""
        self._full_windows: dict[str, _Full] = {}

    async def reserve_sign_in(
        self, connection: Connection, *, account: str, address: str | None
    ) -> Reservation | Refused:
        """Take slots for one attempt to prove `account`'s password from `address`, or refuse with how long to wait.

        Args:
            connection: an open transaction, to be committed before the password is checked.
            account: the canonical email, whether such an account exists or not.
            address: the client address; None if unknown. All unknown clients share one window.
        """
        return await self._reserve(connection, self._of_sign_in(account, address))

    def refuses_sign_in(self, *, account: str, address: str | None) -> Refused | None:
        """Refuse from memory if a window was found full within the last second. No I/O."""
        return self._refuses(self._of_sign_in(account, address))

    async def reserve_registration(self, connection: Connection, *, address: str | None) -> Reservation | Refused:
        """Take a slot for one registration from `address`, or refuse."""
        return await self._reserve(connection, self._of_registration(address))

    def refuses_registration(self, *, address: str | None) -> Refused | None:
        """Refuse from memory if the window was found full within the last second. No I/O."""
        return self._refuses(self._of_registration(address))

    async def release(self, connection: Connection, reservation: Reservation) -> None:
        """Release the slots of an attempt that did not fail."""
        # Only its own: with one account of their own an attacker could otherwise reset the counter for ever.
        if reservation.ids:
            await store.delete_slots(connection, reservation.ids)

    async def try_writing(self, connection: Connection) -> None:
        """Write slots that count for nothing, and delete them: it fails where a sign-in could not be written."""
        # More than a sign-in writes: on a full disk a single row may still fit where another one was deleted.
        now = self._clock.now()
        taken = {new_id(now): ("try writing", now) for _ in range(_TRIED_SLOTS)}
        await store.insert_slots(connection, taken)
        await store.delete_slots(connection, taken.keys())

    async def _reserve(self, connection: Connection, windows: _Windows) -> Reservation | Refused:
        if not self._is_on:
            return Reservation()
        wanted = list(windows.values())
        # Locked in one order everywhere, so that two attempts never deadlock. Counted before the hash: counted after
        # it, as many guesses would pass at once as there are workers and threads.
        await lock_each(connection, sorted(key for key, _ in wanted))
        now = self._clock.now()
        full = await store.when_free(connection, wanted, now=now)
        for (limit, (key, _)), frees_at in zip(windows.items(), full, strict=True):
            if frees_at is not None:
                self._meter.count(Metric.LIMITS_HIT, limit)
                until = min(now + _FULL_IS_REMEMBERED, frees_at)
                self._remember(key, _Full(frees_at=frees_at, remembered_until=until))
        waits = [(frees_at - now).total_seconds() for frees_at in full if frees_at is not None]
        if waits:
            return Refused(Code.TOO_MANY_REQUESTS, retry_after_seconds=max(waits))
        taken = {new_id(now): (key, now + rate.window) for key, rate in wanted}
        await store.insert_slots(connection, taken)
        return Reservation(tuple(taken))

    def _of_sign_in(self, account: str, address: str | None) -> _Windows:
        return {
            "account": (_key("account", account), self._account),
            "address": (_key("address", _counted(address)), self._address),
        }

    def _of_registration(self, address: str | None) -> _Windows:
        return {"register": (_key("register", _counted(address)), self._register)}

    def _refuses(self, windows: _Windows) -> Refused | None:
        now = self._clock.now()
        # A flood of attempts on a locked account would otherwise queue for the very lock, and on SQLite for the one
        # writer, that everybody's sign-in needs.
        remembered = {
            limit: full for limit, (key, _) in windows.items() if (full := self._full_windows.get(key)) is not None
        }
        full_windows = {limit: full for limit, full in remembered.items() if now < full.remembered_until}
        if not full_windows:
            return None
        for limit in full_windows:
            self._meter.count(Metric.LIMITS_HIT, limit)
        wait = max(full.frees_at for full in full_windows.values()) - now
        return Refused(Code.TOO_MANY_REQUESTS, retry_after_seconds=wait.total_seconds())

    def _remember(self, key: str, full: _Full) -> None:
        if len(self._full_windows) >= _MAX_FULL_WINDOWS:
            self._full_windows.clear()
        self._full_windows[key] = full


def _key(kind: str, subject: str) -> str:
    return hashlib.sha256(f"{kind}:{subject}".encode()).hexdigest()


def _counted(address: str | None) -> str:
    # An attacker with one IPv6 address has the 2⁶⁴ beside it (GHSA-p6v2-xcpg-h6xw). An unknown address is counted too:
    # skipping the limit for it was a hole in better-auth.
    if address is None:
        return "unknown"
    parsed = ip_address(address)
    return str(ip_network((parsed, _IPV6_PREFIX), strict=False)) if isinstance(parsed, IPv6Address) else str(parsed)
