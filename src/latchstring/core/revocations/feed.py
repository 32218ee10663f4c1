"""The revocation feed: keeps this process's revoked set up to date.

Access tokens live for minutes, so the set of revocations that still matter is small. Each worker keeps it in memory and
polls the database four times a second. A request reads memory only. If the last successful poll is too old, every
request is refused with 503: access is never decided on stale data.

Entries are never found by time: clocks differ, and transactions do not commit in the order of their ids. `cursor`
explains how they are found instead. No cursor is trusted for long: all entries are read again at the start, after a
failure, when the clock was set, and each minute. The last of these goes a page at a time beside the polls, so that a
hundred thousand entries delay none of them.
"""

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from latchstring.core.caller import Caller
from latchstring.core.keys.ring import KeyRing
from latchstring.core.revocations import store
from latchstring.core.revocations.cursor import Cursor
from latchstring.core.revocations.measured import measured
from latchstring.core.revocations.revoked import RevokedSet, newest_epoch
from latchstring.core.revocations.rules import FeedPage, Revocation
from latchstring.errors import RevocationsUnknownError, UnavailableError
from latchstring.foundation.clock import Clock
from latchstring.foundation.database import Connection, Database
from latchstring.foundation.measurements import UNMETERED, Meter
from latchstring.foundation.polling import polling

# A sign-out has to be in force at every worker within one second (ASVS 7.4.1): an interval, a statement, and a margin.
POLL_INTERVAL_SECONDS = 0.25
# Below the lag at which requests are refused, so that one hung statement does not use it up.
POLL_TIMEOUT_SECONDS = 2.0
RELOAD_INTERVAL_SECONDS = 60.0
PAGE_SIZE = 1000
"""How many entries are read at a time. More would hold the event loop for longer than a signature does."""
_CLOCK_STEP_SECONDS = 1.0
_MAX_RESTARTS = 5
"""How often one poll begins anew because more than a page of entries was written while it read one."""

_log = logging.getLogger(__name__)


class RevocationFeed:
    """Polls the database, and decides from memory whether a caller's session has ended."""

    def __init__(
        self, database: Database, ring: KeyRing, clock: Clock, *, max_lag_seconds: float, meter: Meter = UNMETERED
    ) -> None:
        self._meter = meter
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
        """Call `listener` after each poll that brought entries, and after each that failed."""
        self._listeners.append(listener)

    def refuse_if_stale(self) -> None:
        """Refuse if the revoked set is out of date.

        Raises:
            RevocationsUnknownError: no poll has succeeded yet, or the last successful one began longer ago than
                `max_lag_seconds`.
        """
        # Uptime, which counts suspension and never steps: a machine that slept must not take its set for recent.
        if self._current_as_of is None or self._clock.uptime() - self._current_as_of > self._max_lag:
            raise RevocationsUnknownError("revocations have not been read recently")

    def revocation_reason(self, caller: Caller) -> str | None:
        """Return why the caller's token is refused, as a `RevocationReason` or a newer version's; None if it is not."""
        return self._revoked.reason_for(caller)

    @property
    def keys_epoch(self) -> int:
        """The newest epoch that had begun before this process last read the keys."""
        return self._keys_epoch

    def knows_epoch(self, epoch: int) -> bool:
        """Return whether this process has read the keys since `epoch` began.

        False for an epoch that this process began itself, until its next poll: another process may have retired a key
        at once just before, and this one would still sign with it.
        """
        return epoch <= self._keys_epoch

    def apply(self, revocations: Iterable[Revocation]) -> None:
        """Add entries to the revoked set, and call the listeners."""
        # The worker that revokes calls this before it responds, so that its own next response already refuses.
        revocations = tuple(revocations)
        self._revoked.add(revocations)
        if revocations:
            self._notify_listeners()

    async def poll(self) -> None:
        """Read new entries from the database once, or all of them if there is no cursor to trust.

        Raises:
            UnavailableError: the database is unavailable; the next poll reads all entries again.
        """
        # Its beginning counts as how recent the set is: what commits during a slow poll is not in its snapshot.
        began = self._clock.uptime()
        if self._clock_was_set(began):
            self._cursor = None
        try:
            self._ring.advance()
            if self._cursor is None or not await self._go_on(self._cursor, began=began):
                await self._load(began=began)
        # Also when cancelled: after any failure it is unknown which entries were applied.
        except BaseException:
            self._cursor = None
            self._notify_listeners()
            raise
        # Polls may overlap, if an application calls this method too. One that began earlier may end later.
        self._current_as_of = began if self._current_as_of is None else max(began, self._current_as_of)

    def _notify_listeners(self) -> None:
        for listener in self._listeners:
            listener()

    async def _load(self, *, began: float) -> None:
        """Read all entries."""
        # The cursor first: entries that commit while the pages are read are found from there, beside each page. A
        # hundred thousand entries would otherwise hide a sign-out for as long as reading them takes.
        self._reloading_after = store.BEFORE_ALL
        cursor: str | None = None
        restarts = 0
        while self._reloading_after is not None:
            if cursor is None:
                if restarts == _MAX_RESTARTS:
                    raise RevocationsUnknownError("more entries are written than can be read")
                restarts += 1
                async with self._reading() as connection:
                    cursor = await store.revocations_cursor(connection)
                self._reloading_after, self._reloaded_at = store.BEFORE_ALL, began
            has_gone_on = await self._go_on(cursor, began=began)
            cursor = self._cursor if has_gone_on else None

    async def _go_on(self, cursor: str, *, began: float) -> bool:
        """Read what is new since the cursor; return False if it can't be continued."""
        async with self._reading() as connection:
            result = await store.revocations_since(connection, cursor, most=PAGE_SIZE)
            if result is None:
                return False
            self._cursor = result.cursor
            await self._take_in(connection, result.entries, keys_revision=result.keys_revision)
            if self._reloading_after is None and began - self._reloaded_at >= RELOAD_INTERVAL_SECONDS:
                self._reloading_after, self._reloaded_at = store.BEFORE_ALL, began
            if self._reloading_after is not None:
                await self._read_page(connection, after=self._reloading_after)
        return True

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
        """Apply entries, and reload the keys, unless they were read at `keys_revision`."""
        try:
            # The keys first: a user who signs in again because of an entry must not get a token of a key that ended
            # with it. The snapshot of the entries is older than that of the keys, so no epoch is noted too early.
            await self._ring.reload(connection, revision=keys_revision)
            self._keys_epoch = max(self._keys_epoch, newest_epoch(entries))
        finally:
            # What has ended is refused, whether or not the keys can be read.
            self.apply(entries)

    async def page(self, after: str | None) -> FeedPage:
        """Return the page after a cursor; the first page of the whole feed if there is none or it can't be used.

        Args:
            after: `CURSOR`, a position in the feed, which matches `CURSOR_PATTERN`; or `CURSOR-NUMBER`, a position
                within the whole feed, where `NUMBER` is that of the last entry returned.

        Raises:
            UnavailableError: the database is unavailable, or this process's polls fail.
        """
        # A worker that could be missing keys that were retired must not report "nothing new" to other services.
        self.refuse_if_stale()
        cursor, _, number = (after or "").partition("-")
        async with self._database.reading() as connection:
            if cursor and number:
                return await self._page_of_all(connection, cursor, after=int(number))
            result = await store.revocations_since(connection, cursor, most=PAGE_SIZE) if cursor else None
            if result is None:
                cursor = await store.revocations_cursor(connection)
                return await self._page_of_all(connection, cursor, after=store.BEFORE_ALL)
        return self._page(result.cursor, result.entries)

    async def _page_of_all(self, connection: Connection, cursor: str, *, after: int) -> FeedPage:
        entries, last = await store.revocations_page(connection, after=after, most=PAGE_SIZE, now=self._clock.now())
        position = cursor if last is None else f"{cursor}-{last}"
        return self._page(position, entries, resync=after == store.BEFORE_ALL, more=last is not None)

    def _page(
        self, cursor: str, entries: Sequence[Revocation], *, resync: bool = False, more: bool = False
    ) -> FeedPage:
        position, dash, number = cursor.partition("-")
        return FeedPage(
            cursor=f"{Cursor.parse(position).shortened()}{dash}{number}",
            resync=resync,
            more=more,
            entries=entries,
            retired_keys=self._ring.ended_at_once(),
        )

    @contextlib.asynccontextmanager
    async def _reading(self) -> AsyncIterator[Connection]:
        # Not from the pool: requests that hold all of its connections must not delay a sign-out.
        async with self._database.reading_apart(timeout_seconds=POLL_TIMEOUT_SECONDS) as connection:
            yield connection

    def _clock_was_set(self, uptime: float) -> bool:
        # While a clock ran ahead, entries were dropped as expired that count again once it is corrected.
        day_at_boot, before = self._clock.now().timestamp() - uptime, self._day_at_boot
        self._day_at_boot = day_at_boot
        return abs(day_at_boot - before) > _CLOCK_STEP_SECONDS

    def polling(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Poll the database while the block runs. The first poll has been tried when the block begins."""
        # After a restart in the same process it may be another database, or the same one much later.
        self._cursor, self._current_as_of, self._revoked, self._keys_epoch = None, None, RevokedSet(), 0
        poll = measured(
            self.poll, self._meter, current_as_of=lambda: self._current_as_of, entries=lambda: self._revoked.sizes
        )
        # Until a poll succeeds, and if none has succeeded for too long, `refuse_if_stale` refuses every request.
        return polling(
            poll, what="revocations", every_seconds=POLL_INTERVAL_SECONDS, expected=UnavailableError, log=_log
        )
