"""The revocation feed: what has ended, in this process's memory.

Access tokens live minutes, so what was revoked and could still be presented is small. Each worker keeps it, and asks
the database four times a second for what is new. A request asks only this memory, and the memory answers only while
its last good look at the database is recent: on stale knowledge nobody is let in.

Revocations are never found by their time: clocks differ, and commits overtake one another. See `store` for how. And
no cursor is trusted for long: everything is read again at the start, after a failure, when the clock was set, and each
minute. The last goes on a page at a time beside the polls, so that a hundred thousand entries delay none of them.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from latchstring.core.caller import Caller
from latchstring.core.keys.ring import KeyRing
from latchstring.core.revocations import store
from latchstring.core.revocations.revoked import RevokedSet, newest_epoch
from latchstring.core.revocations.rules import FeedPage, Revocation
from latchstring.errors import RevocationsUnknownError, UnavailableError
from latchstring.foundation.clock import Clock
from latchstring.foundation.database import Connection, Database
from latchstring.foundation.polling import polling

POLL_INTERVAL_SECONDS = 0.25
POLL_TIMEOUT_SECONDS = 2.0
RELOAD_INTERVAL_SECONDS = 60.0
PAGE_SIZE = 1000
"""How many entries are read at a time: more would hold the event loop for longer than a signature does."""
_CLOCK_STEP_SECONDS = 1.0

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
        self._reloading_after: int | None = None
        self._day_at_boot = 0.0
        self._current_as_of: float | None = None
        self._revoked = RevokedSet()
        self._keys_epoch = 0
        self._listeners: list[Callable[[], None]] = []

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever this process learns something, or fails to."""
        self._listeners.append(listener)

    def refuse_if_stale(self) -> None:
        """Pass, while what this process knows is recent.

        Raises:
            RevocationsUnknownError: nothing was read yet, or the last good read began longer ago than the limit.
        """
        if self._current_as_of is None or self._clock.uptime() - self._current_as_of > self._max_lag:
            raise RevocationsUnknownError("revocations have not been read recently")

    def revocation_reason(self, caller: Caller) -> str | None:
        """Return why the caller's session has ended; None if it is active. Newer versions may have other reasons."""
        return self._revoked.reason_for(caller)

    @property
    def keys_epoch(self) -> int:
        """The newest epoch that had begun when this process last read the keys."""
        return self._keys_epoch

    def knows_epoch(self, epoch: int) -> bool:
        """Tell whether this process has read the keys since an epoch began.

        An epoch that this process began itself does not count until its next poll: another process may have retired a
        key a moment before.
        """
        return epoch <= self._keys_epoch

    def apply(self, revocations: Iterable[Revocation]) -> None:
        """Take entries into memory; knowing one already changes nothing, and nothing known is lost."""
        revocations = tuple(revocations)
        self._revoked.add(revocations)
        if revocations:
            self._notify_listeners()

    async def poll(self) -> None:
        """Look at the database once: for what is new, or, where no cursor can be trusted, for all.

        Raises:
            UnavailableError: the database was away; the next good poll reads everything again.
        """
        began = self._clock.uptime()
        if self._clock_was_set(began):
            self._cursor = None
        try:
            self._ring.advance()
            if self._cursor is None:
                await self._load(began=began)
            else:
                await self._go_on(self._cursor, began=began)
        except BaseException as error:
            self._cursor = None
            self._notify_listeners()
            if isinstance(error, TimeoutError):
                raise RevocationsUnknownError("the database did not answer in time") from None
            raise
        self._current_as_of = began

    def _notify_listeners(self) -> None:
        for listener in self._listeners:
            listener()

    async def _load(self, *, began: float) -> None:
        # The cursor first: what commits while the pages are read is found from there.
        async with self._reading() as connection:
            cursor = await store.revocations_cursor(connection)
        self._reloading_after, self._reloaded_at = store.BEFORE_ALL, began
        has_more = True
        while has_more:
            async with self._reading() as connection:
                has_more = await self._read_page(connection, after=self._reloading_after)
        self._cursor = cursor

    async def _go_on(self, cursor: str, *, began: float) -> None:
        async with self._reading() as connection:
            result = await store.revocations_since(connection, cursor)
            self._cursor = result.cursor
            await self._take_in(connection, result.entries, keys_revision=result.keys_revision)
            if self._reloading_after is None and began - self._reloaded_at >= RELOAD_INTERVAL_SECONDS:
                self._reloading_after, self._reloaded_at = store.BEFORE_ALL, began
            if self._reloading_after is not None:
                await self._read_page(connection, after=self._reloading_after)

    async def _read_page(self, connection: Connection, *, after: int) -> bool:
        entries, self._reloading_after = await store.revocations_page(
            connection, after=after, most=PAGE_SIZE, now=self._clock.now()
        )
        if after == store.BEFORE_ALL or newest_epoch(entries) > self._keys_epoch:
            await self._take_in(connection, entries)
        else:
            self.apply(entries)
        if self._reloading_after is None:
            self._revoked.forget_expired(now=self._clock.now().timestamp())
        return self._reloading_after is not None

    async def _take_in(
        self, connection: Connection, entries: Sequence[Revocation], *, keys_revision: int | None = None
    ) -> None:
        """Apply entries, and read the keys after them, unless they are those of `keys_revision` still."""
        try:
            # The keys first: whoever signs in again because of an entry must not get a token of a key that ended then.
            await self._ring.reload(connection, revision=keys_revision)
            self._keys_epoch = max(self._keys_epoch, newest_epoch(entries))
        finally:
            # What has ended is refused, whether or not the keys can be read.
            self.apply(entries)

    async def page(self, after: str | None) -> FeedPage:
        """Return what is new after a cursor; everything, where there is none or it can't be gone on from.

        Args:
            after: `CURSOR`, where the feed stood; or `CURSOR-NUMBER`, in the middle of everything, with the number of
                the last entry told.

        Raises:
            UnavailableError: the database is away, or this process does not follow it.
        """
        self.refuse_if_stale()
        cursor, _, number = (after or "").partition("-")
        async with self._reading() as connection:
            if cursor and number:
                return await self._page_of_all(connection, cursor, after=int(number))
            result = await store.revocations_since(connection, cursor) if cursor else None
            # A cursor from the future is one of another database: this one was restored from a copy.
            if result is None or int(result.cursor) < int(cursor) or len(result.entries) > PAGE_SIZE:
                cursor = await store.revocations_cursor(connection)
                return await self._page_of_all(connection, cursor, after=store.BEFORE_ALL)
        return self._page(result.cursor, result.entries)

    async def _page_of_all(self, connection: Connection, cursor: str, *, after: int) -> FeedPage:
        entries, last = await store.revocations_page(connection, after=after, most=PAGE_SIZE, now=self._clock.now())
        here = cursor if last is None else f"{cursor}-{last}"
        return self._page(here, entries, resync=after == store.BEFORE_ALL, more=last is not None)

    def _page(
        self, cursor: str, entries: Sequence[Revocation], *, resync: bool = False, more: bool = False
    ) -> FeedPage:
        return FeedPage(
            cursor=cursor,
            resync=resync,
            more=more,
            entries=entries,
            retired_keys=self._ring.ended_at_once(),
        )

    @contextlib.asynccontextmanager
    async def _reading(self) -> AsyncIterator[Connection]:
        async with asyncio.timeout(POLL_TIMEOUT_SECONDS), self._database.reading() as connection:
            yield connection

    def _clock_was_set(self, uptime: float) -> bool:
        # A clock that ran ahead has had entries forgotten that count again once it is put right.
        day_at_boot, before = self._clock.now().timestamp() - uptime, self._day_at_boot
        self._day_at_boot = day_at_boot
        return abs(day_at_boot - before) > _CLOCK_STEP_SECONDS

    def polling(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Follow the database as long as the block runs. The first poll has been tried when it begins."""
        # Begun anew, it may be another database, or this one long after.
        self._cursor, self._current_as_of, self._revoked, self._keys_epoch = None, None, RevokedSet(), 0
        # Until one succeeds, and when none has for too long, `refuse_if_stale` keeps the door shut.
        return polling(
            self.poll, what="revocations", every_seconds=POLL_INTERVAL_SECONDS, expected=UnavailableError, log=_log
        )
