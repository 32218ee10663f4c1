"""The issuer's revocations, polled over HTTP: the same revoked set as its own workers, half a second later."""

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
# No cursor is trusted for long: after a restore the issuer's feed may have other numbers.
RESYNC_INTERVAL_SECONDS = 300.0
MAX_BYTES = 1024 * 1024
# An issuer that always says `more` must not keep the poll busy for ever.
_MAX_PAGES = 10_000

_log = logging.getLogger(__name__)


class PolledRevocations:
    """Polls the issuer's feed, and decides from memory whether a caller's session has ended."""

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
        """Refuse if the revoked set is out of date.

        Raises:
            RevocationsUnknownError: no poll has succeeded yet, or the last successful one began longer ago than
                `max_lag_seconds`.
        """
        # Fail closed: a revoked session that is let in during an outage is what following revocations is to prevent.
        if self._current_as_of is None or self._clock.uptime() - self._current_as_of > self._max_lag:
            raise RevocationsUnknownError("the issuer's revocations have not been read recently")

    def revocation_reason(self, caller: Caller) -> str | None:
        """Return why the caller's token is refused, as a `RevocationReason` or a newer version's; None if it is not."""
        return self._revoked.reason_for(caller)

    async def poll(self) -> None:
        """Request new entries once, or the whole feed every five minutes and after a failure.

        Raises:
            IssuerError: the issuer did not respond, or its response can't be used.
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
        # The present set stays in use until the whole feed has been read: in between, a half-read set would let in
        # sessions that have ended.
        revoked = self._revoked
        for _ in range(_MAX_PAGES):
            page = await self._page()
            if page.more and page.cursor == self._cursor:
                # Requesting the next page at once would return the same page, in a loop as fast as both sides can.
                raise IssuerError("the feed does not go on: it returned the same cursor again")
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
        raise IssuerError("the feed has too many pages")

    async def _page(self) -> FeedPageResponse:
        url = self._url if self._cursor is None else f"{self._url}?{urlencode({'after': self._cursor})}"
        headers = {"Authorization": f"Bearer {self._token.get_secret_value()}"}
        response = await self._issuer.get(url, max_bytes=MAX_BYTES, headers=headers)
        try:
            return FeedPageResponse.model_validate_json(response.body)
        except ValidationError:
            raise IssuerError("the response is no page of a revocation feed") from None

    def polling(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Poll the issuer while the block runs. The first poll has been tried when the block begins."""
        # Until a poll succeeds, and if none has succeeded for too long, `refuse_if_stale` refuses every token.
        return polling(
            self.poll, what="revocations", every_seconds=POLL_INTERVAL_SECONDS, expected=IssuerError, log=_log
        )
