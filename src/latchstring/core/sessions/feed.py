"""The revocation feed: what has ended, in this process's memory.

Access tokens live minutes, so what was revoked and could still be presented is small. Each worker keeps it, and asks
the database four times a second for what is new. A request asks only this memory, and the memory answers only while
its last good look at the database is recent: on stale knowledge nobody is let in.

Revocations are never found by their time: clocks differ, and commits overtake one another. See `store` for how.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable
from uuid import UUID

from latchstring.core.caller import Caller
from latchstring.core.sessions import store
from latchstring.core.sessions.rules import EndReason
from latchstring.core.sessions.store import Revocation, RevocationKind
from latchstring.core.tokens.ring import KeyRing
from latchstring.errors import RevocationsUnknownError, UnavailableError
from latchstring.foundation.clock import Clock
from latchstring.foundation.database import Database

POLL_INTERVAL_SECONDS = 0.25
POLL_TIMEOUT_SECONDS = 2.0
RELOAD_INTERVAL_SECONDS = 60.0

_log = logging.getLogger(__name__)


class RevocationFeed:
    """Follows the database, and answers from memory whether a caller's session has ended."""

    def __init__(self, database: Database, ring: KeyRing, clock: Clock, *, max_lag_seconds: float) -> None:
        self._database = database
        self._ring = ring
        self._clock = clock
        self._max_lag = max_lag_seconds
        self._cursor: str | None = None
        self._reloaded_at = 0.0
        self._current_as_of: float | None = None
        self._ended_sessions: dict[UUID, float] = {}
        self._ended_users: dict[UUID, dict[EndReason, tuple[int, float]]] = {}

    def refuse_if_stale(self) -> None:
        """Pass, while what this process knows is recent.

        Raises:
            RevocationsUnknownError: nothing was read yet, or the last good read began longer ago than the limit.
        """
        if self._current_as_of is None or self._clock.uptime() - self._current_as_of > self._max_lag:
            raise RevocationsUnknownError("revocations have not been read recently")

    def ended_because(self, caller: Caller) -> EndReason | None:
        """Return why the caller's session has ended, or None while it lives."""
        if self._ended_users:
            entries = self._ended_users.get(caller.user_id)
            if entries is not None:
                reasons = [reason for reason, (below, _) in entries.items() if caller.claims_version < below]
                if EndReason.USER_DELETED in reasons:
                    return EndReason.USER_DELETED
                if reasons:
                    return reasons[0]
        if caller.session_id in self._ended_sessions:
            return EndReason.LOGOUT
        return None

    def apply(self, revocations: Iterable[Revocation]) -> None:
        """Take entries into memory; knowing one already changes nothing, and nothing known is lost."""
        for entry in revocations:
            expires = entry.expires_at.timestamp()
            match entry.kind:
                case RevocationKind.SESSION if entry.session_id is not None:
                    self._ended_sessions[entry.session_id] = expires
                case RevocationKind.USER if entry.below_version is not None:
                    entries = self._ended_users.setdefault(entry.user_id, {})
                    below, until = entries.get(entry.reason, (0, 0.0))
                    entries[entry.reason] = (max(below, entry.below_version), max(until, expires))
                case _:
                    raise ValueError(f"a {entry.kind} revocation names nobody")

    async def poll(self) -> None:
        """Look at the database once: for what is new, or, at the start, after a failure and each minute, for all.

        Raises:
            UnavailableError: the database was away; the next good poll reads everything again.
        """
        began = self._clock.uptime()
        reload = self._cursor is None or began - self._reloaded_at >= RELOAD_INTERVAL_SECONDS
        try:
            async with asyncio.timeout(POLL_TIMEOUT_SECONDS), self._database.reading() as connection:
                if reload or self._cursor is None:
                    await self._ring.reload(connection)
                    entries, cursor = await store.all_revocations(connection, now=self._clock.now())
                    self._reloaded_at = began
                else:
                    entries, cursor = await store.revocations_since(connection, self._cursor)
        except TimeoutError:
            self._cursor = None
            raise RevocationsUnknownError("the database did not answer in time") from None
        except BaseException:
            self._cursor = None
            raise
        self.apply(entries)
        if reload:
            self._forget_expired()
        self._cursor = cursor
        self._current_as_of = began

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow the database as long as the block runs. The first poll has been tried when it begins."""
        await self._try_poll(quiet=False)
        ending = asyncio.Event()
        task = asyncio.create_task(self._follow(ending), name="latchstring revocation feed")
        try:
            yield
        finally:
            # A poll that is under way may finish: cut off while it connects, it would leave half a connection behind.
            ending.set()
            await task

    async def _follow(self, ending: asyncio.Event) -> None:
        failing = self._current_as_of is None
        while not await _happens(ending, within_seconds=POLL_INTERVAL_SECONDS):
            succeeded = await self._try_poll(quiet=failing)
            if failing and succeeded:
                _log.info("revocations are followed again")
            failing = not succeeded

    async def _try_poll(self, *, quiet: bool) -> bool:
        try:
            await self.poll()
        except UnavailableError as error:
            if not quiet:
                _log.warning("revocations can't be followed: %s", error)
            return False
        except Exception:  # noqa: BLE001 -- see below
            # Whatever it was, the next poll may succeed; until then `refuse_if_stale` keeps the door shut.
            if not quiet:
                _log.exception("revocations can't be followed")
            return False
        return True

    def _forget_expired(self) -> None:
        now = self._clock.now().timestamp()
        self._ended_sessions = {key: until for key, until in self._ended_sessions.items() if until > now}
        kept = {
            user: {reason: entry for reason, entry in entries.items() if entry[1] > now}
            for user, entries in self._ended_users.items()
        }
        self._ended_users = {user: entries for user, entries in kept.items() if entries}


async def _happens(event: asyncio.Event, *, within_seconds: float) -> bool:
    try:
        async with asyncio.timeout(within_seconds):
            return await event.wait()
    except TimeoutError:
        return False
