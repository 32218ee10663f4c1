"""Limits on guessing, in the database, so that all workers and instances share them.

    counted = await limits.count_sign_in(connection, account=…, address=…)     before the hash
    …the password is checked, with no connection held…
    await limits.give_back(connection, counted)                                where it was right

Each try takes a place in the account's window and in the address's; where one is full, the try is refused before
anything is hashed, and takes no place. Tries that turn out right give theirs back, and no others': a success in
between does not reset what an attacker has used up (allauth 65.8.1). A place is taken in one transaction, one try after
the other, so that parallel guesses get no more of them than there are.

The windows slide: in any fifteen minutes, wherever they begin, there are no more failures than the rate says. A window
that was found full is not asked about again for a second: whoever floods a locked account costs everybody else nothing.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Annotated, Self
from uuid import UUID

import sqlalchemy as sa
from pydantic import BaseModel, BeforeValidator, ConfigDict

from latchstring.errors import Code, Refused
from latchstring.foundation.clock import Clock, new_id
from latchstring.foundation.database import Connection, UtcDateTime, lock_each, metadata

_NOTATION = re.compile(r"([0-9]{1,9})\s*/\s*([0-9]{1,6})\s*([smh])")
_UNITS = {"s": 1, "m": 60, "h": 3600}
_IPV6_PREFIX = 64
_NOT_ASKED_AGAIN = timedelta(seconds=1)
_MOST_KNOWN_FULL = 4096
_CLOCKS_DIFFER = timedelta(hours=1)

places = sa.Table(
    "latchstring_limits",
    metadata,
    sa.Column("id", sa.Uuid(), primary_key=True),
    # A hash of whom it counts, so that all keys have one length. It hides what was typed from a glance, and from no
    # more than that: addresses can be guessed.
    sa.Column("key", sa.String(64), nullable=False),
    sa.Column("expires_at", UtcDateTime(), nullable=False, index=True),
    sa.Index("ix_latchstring_limits_key_expires_at", "key", "expires_at"),
)


@dataclass(frozen=True, slots=True)
class Rate:
    """So many times within so many seconds."""

    times: int
    seconds: int

    def __post_init__(self) -> None:
        """Refuse a rate that would refuse everybody, or nobody."""
        if self.times < 1 or self.seconds < 1:
            raise ValueError("must be a rate of at least once, in at least a second")

    @property
    def window(self) -> timedelta:
        """The seconds as a duration."""
        return timedelta(seconds=self.seconds)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the rate written as `10/15m`: times, a slash, a number of seconds, minutes or hours (`s`, `m`, `h`).

        Raises:
            ValueError: not so written, or one of the numbers is nought.
        """
        match = _NOTATION.fullmatch(text.strip())
        if match is None:
            raise ValueError("must be a rate such as 10/15m: times, a slash, a number of s, m or h")
        return cls(int(match[1]), int(match[2]) * _UNITS[match[3]])

    def __str__(self) -> str:
        """Return the notation that `parse` reads."""
        unit = next(unit for unit in ("h", "m", "s") if self.seconds % _UNITS[unit] == 0)
        return f"{self.times}/{self.seconds // _UNITS[unit]}{unit}"


def _rate(value: object) -> object:
    return Rate.parse(value) if isinstance(value, str) else value


RateSetting = Annotated[Rate, BeforeValidator(_rate)]


class LimitSettings(BaseModel):
    """How often what may be tried, each as `times/period`."""

    model_config = ConfigDict(frozen=True)

    limits: bool = True
    """`off` for a load test."""
    limit_account: RateSetting = Rate(10, 15 * 60)
    """Failed proofs of one account's password, whichever door they are tried at and however the address is spelled."""
    limit_address: RateSetting = Rate(100, 15 * 60)
    """The same from one network address; of IPv6 a whole /64 is one."""
    limit_register: RateSetting = Rate(20, 60 * 60)
    """Registrations from one network address, those refused included."""
    limit_refresh: RateSetting = Rate(60, 60)
    """Refreshes of one session, repeated answers included."""


def _frees_at(number: int) -> sa.ScalarSelect[datetime]:
    # When one place fewer than the rate will be taken; NULL where that is so now. After the rate was lowered more are
    # taken than there are: then the first to run out makes no room yet.
    return (
        sa.select(places.c.expires_at)
        .where(
            places.c.key == sa.bindparam(f"key{number}"), places.c.expires_at > sa.bindparam("now", type_=UtcDateTime())
        )
        .order_by(places.c.expires_at.desc())
        .offset(sa.bindparam(f"others{number}"))
        .limit(1)
        .scalar_subquery()
    )


_QUESTIONS: dict[int, sa.Executable] = {1: sa.select(_frees_at(0)), 2: sa.select(_frees_at(0), _frees_at(1))}
_INSERT = places.insert()


def _question(wanted: Sequence[tuple[str, Rate]], *, now: datetime) -> tuple[sa.Executable, dict[str, object]]:
    parameters: dict[str, object] = {"now": now}
    for number, (key, rate) in enumerate(wanted):
        parameters |= {f"key{number}": key, f"others{number}": rate.times - 1}
    return _QUESTIONS[len(wanted)], parameters


@dataclass(frozen=True, slots=True)
class Counted:
    """The places that one try has taken."""

    ids: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class _Full:
    frees_at: datetime
    ask_again_at: datetime


class Limits:
    """Counts tries, and refuses those beyond the rates."""

    def __init__(self, settings: LimitSettings, clock: Clock) -> None:
        self._clock = clock
        self._is_on = settings.limits
        self._account = settings.limit_account
        self._address = settings.limit_address
        self._register = settings.limit_register
        self.refresh = settings.limit_refresh if settings.limits else None
        """How often one session may be renewed; its row does the counting."""
        self._known_full: dict[str, _Full] = {}

    async def count_sign_in(self, connection: Connection, *, account: str, address: str | None) -> Counted | Refused:
        """Take a place for one try to prove `account`'s password from `address`, or refuse with how long to wait.

        Args:
            connection: an open transaction, to be committed before the password is checked.
            account: the canonical e-mail address, whether there is such an account or not.
            address: the network address; None where it is not known, which counts as one address.
        """
        return await self._count(connection, *self._of_sign_in(account, address))

    def refuses_sign_in(self, *, account: str, address: str | None) -> Refused | None:
        """Refuse, without asking the database, what would have been refused a moment ago."""
        return self._refuses(*self._of_sign_in(account, address))

    async def count_registration(self, connection: Connection, *, address: str | None) -> Counted | Refused:
        """Take a place for one registration from `address`, or refuse."""
        return await self._count(connection, self._of_registration(address))

    def refuses_registration(self, *, address: str | None) -> Refused | None:
        """Refuse, without asking the database, what would have been refused a moment ago."""
        return self._refuses(self._of_registration(address))

    async def give_back(self, connection: Connection, counted: Counted) -> None:
        """Free the places of a try that was no failure."""
        if counted.ids:
            await connection.execute(places.delete().where(places.c.id.in_(counted.ids)))

    async def _count(self, connection: Connection, *wanted: tuple[str, Rate]) -> Counted | Refused:
        if not self._is_on:
            return Counted()
        # In one order everywhere, so that two tries never wait for each other.
        await lock_each(connection, sorted(key for key, _ in wanted))
        now = self._clock.now()
        full = (await connection.execute(*_question(wanted, now=now))).one()
        for (key, _), frees_at in zip(wanted, full, strict=True):
            if frees_at is not None:
                self._remember(key, _Full(frees_at=frees_at, ask_again_at=min(now + _NOT_ASKED_AGAIN, frees_at)))
        waits = [(frees_at - now).total_seconds() for frees_at in full if frees_at is not None]
        if waits:
            return Refused(Code.TOO_MANY_REQUESTS, retry_after_seconds=max(waits))
        rows = [{"id": new_id(now), "key": key, "expires_at": now + rate.window} for key, rate in wanted]
        await connection.execute(_INSERT, rows)
        return Counted(tuple(row["id"] for row in rows if isinstance(row["id"], UUID)))

    def _of_sign_in(self, account: str, address: str | None) -> tuple[tuple[str, Rate], ...]:
        return (_key("account", account), self._account), (_key("address", _network(address)), self._address)

    def _of_registration(self, address: str | None) -> tuple[str, Rate]:
        return _key("register", _network(address)), self._register

    def _refuses(self, *wanted: tuple[str, Rate]) -> Refused | None:
        now = self._clock.now()
        known = [full for key, _ in wanted if (full := self._known_full.get(key)) and now < full.ask_again_at]
        if not known:
            return None
        wait = max(full.frees_at for full in known) - now
        return Refused(Code.TOO_MANY_REQUESTS, retry_after_seconds=wait.total_seconds())

    def _remember(self, key: str, full: _Full) -> None:
        if len(self._known_full) >= _MOST_KNOWN_FULL:
            self._known_full.clear()
        self._known_full[key] = full


async def prune_limits(connection: Connection, *, now: datetime, most: int) -> int:
    """Delete places whose time has run out on every instance's clock, `most` at a time; return how many."""
    long_ago = now - _CLOCKS_DIFFER
    expired = sa.select(places.c.id).where(places.c.expires_at <= long_ago).order_by(places.c.expires_at).limit(most)
    return (await connection.execute(places.delete().where(places.c.id.in_(expired)))).rowcount


def _key(kind: str, subject: str) -> str:
    return hashlib.sha256(f"{kind}:{subject}".encode()).hexdigest()


def _network(address: str | None) -> str:
    # Whoever has one IPv6 address has the 2⁶⁴ beside it (GHSA-p6v2-xcpg-h6xw); one that is not known is never let off.
    if address is None:
        return "unknown"
    parsed = ip_address(address)
    return str(ip_network((parsed, _IPV6_PREFIX), strict=False)) if isinstance(parsed, IPv6Address) else str(parsed)
