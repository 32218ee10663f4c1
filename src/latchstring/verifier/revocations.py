"""What has ended at the issuer, followed: the memory its own workers keep, half a second behind them."""

import contextlib
import logging
from urllib.parse import urlencode

from pydantic import SecretStr, ValidationError

from latchstring.core.caller import Caller
from latchstring.core.revocations.revoked import RevokedSet
from latchstring.core.revocations.schemas import FeedPageResponse
from latchstring.errors import RevocationsUnknownError
from latchstring.foundation.clock import Clock
from latchstring.foundation.polling import polling
from latchstring.verifier.issuer import IssuerClient, IssuerError
from latchstring.verifier.keys import IssuerKeys

POLL_INTERVAL_SECONDS = 0.5
RESYNC_INTERVAL_SECONDS = 300.0
MAX_BYTES = 1024 * 1024
_MAX_PAGES = 10_000

_log = logging.getLogger(__name__)


class PolledRevocations:
    """Asks the issuer's feed, and answers from memory while its last good look is recent."""

    def __init__(
        self,
        url: str,
        token: SecretStr,
        issuer: IssuerClient,
        keys: IssuerKeys,
        clock: Clock,
        *,
        max_lag_seconds: float,
    ) -> None:
        self._url = url
        self._token = token
        self._issuer = issuer
        self._keys = keys
        self._clock = clock
        self._max_lag = max_lag_seconds
        self._revoked = RevokedSet()
        self._cursor: str | None = None
        self._resynced_at = 0.0
        self._current_as_of: float | None = None

    def refuse_if_stale(self) -> None:
        """Pass, while what is known is recent.

        Raises:
            RevocationsUnknownError: nothing was read yet, or the last good look began longer ago than the limit.
        """
        if self._current_as_of is None or self._clock.uptime() - self._current_as_of > self._max_lag:
            raise RevocationsUnknownError("the issuer's revocations have not been read recently")

    def revocation_reason(self, caller: Caller) -> str | None:
        """Return why the caller's session has ended; None: it lives."""
        return self._revoked.reason_for(caller)

    async def poll(self) -> None:
        """Ask once for what is new, or, now and then and after a failure, for everything.

        Raises:
            IssuerError: there was no answer, or none that could be used.
        """
        began = self._clock.uptime()
        if began - self._resynced_at >= RESYNC_INTERVAL_SECONDS:
            self._cursor = None
        try:
            await self._read(began=began)
        except BaseException:
            self._cursor = None
            raise
        self._current_as_of = began

    async def _read(self, *, began: float) -> None:
        # What was known is known until everything has been told anew.
        revoked = self._revoked
        for _ in range(_MAX_PAGES):
            page = await self._page()
            if page.more and page.cursor == self._cursor:
                # Asked on at once, the same page would come again, as fast as the two of us can.
                raise IssuerError("a feed that does not go on")
            if page.resync:
                revoked, self._resynced_at = RevokedSet(), began
            try:
                revoked.add(entry.revocation() for entry in page.entries)
            except ValueError as error:
                raise IssuerError(str(error)) from None
            self._cursor = page.cursor
            if not page.more:
                self._keys.drop(page.retired_keys)
                self._revoked = revoked
                return
        raise IssuerError("a feed without end")

    async def _page(self) -> FeedPageResponse:
        url = self._url if self._cursor is None else f"{self._url}?{urlencode({'after': self._cursor})}"
        headers = {"Authorization": f"Bearer {self._token.get_secret_value()}"}
        response = await self._issuer.get(url, max_bytes=MAX_BYTES, headers=headers)
        try:
            return FeedPageResponse.model_validate_json(response.body)
        except ValidationError:
            raise IssuerError("no page of a revocation feed") from None

    def polling(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Follow as long as the block runs. The first look has been tried when it begins."""
        # Until one succeeds, and when none has for too long, `refuse_if_stale` keeps the door shut.
        return polling(
            self.poll, what="revocations", every_seconds=POLL_INTERVAL_SECONDS, expected=IssuerError, log=_log
        )
