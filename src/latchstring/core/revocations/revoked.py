"""What has ended, in memory: the entries of the revocation feed, and whether a caller is among them.

Pure of databases and networks, so that a service that has none of ours can keep the same memory.
"""

from collections.abc import Iterable
from uuid import UUID

from latchstring.core.caller import Caller
from latchstring.core.revocations.rules import Revocation, RevocationKind, RevocationReason


def _weight(reason: str) -> int:
    """Tell which of a user's entries counts first: a deleted one is not found, one with other claims lives."""
    return {RevocationReason.USER_DELETED.value: 0, RevocationReason.CLAIMS_CHANGED.value: 2}.get(reason, 1)


def newest_epoch(revocations: Iterable[Revocation]) -> int:
    """Return the newest of the epochs that the entries say have begun; 0 where there is none."""
    begun = (entry.below_version or 0 for entry in revocations if entry.kind is RevocationKind.EVERYONE)
    return max(begun, default=0)


class RevokedSet:
    """Knows what has ended, for as long as a token of it could still be shown."""

    def __init__(self) -> None:
        # By the id's number: a UUID is twice as large, and computes its hash in Python.
        self._sessions: dict[int, float] = {}
        self._users: dict[UUID, dict[str, tuple[int, float]]] = {}
        self._epoch = 0

    @property
    def epoch(self) -> int:
        """The epoch in force, as far as is known."""
        return self._epoch

    def reason_for(self, caller: Caller) -> str | None:
        """Return why the caller's session has ended; None if it is active. Newer versions may have other reasons."""
        of_user: str | None = None
        if self._users:
            entries = self._users.get(caller.user_id)
            if entries is not None:
                reasons = [reason for reason, (below, _) in entries.items() if caller.claims_version < below]
                of_user = min(reasons, key=_weight, default=None)
                if of_user is not None and of_user != RevocationReason.CLAIMS_CHANGED:
                    return of_user
        if caller.session_id.int in self._sessions:
            return RevocationReason.LOGOUT
        if caller.epoch < self._epoch:
            return RevocationReason.OPERATOR
        # Other claims come last: whoever was told to refresh, and does so in vain, was told the wrong thing.
        return of_user

    def add(self, revocations: Iterable[Revocation]) -> None:
        """Take entries into memory; knowing one already changes nothing, and nothing known is lost."""
        for entry in revocations:
            if entry.kind is RevocationKind.EVERYONE and entry.below_version is not None:
                self._epoch = max(self._epoch, entry.below_version)
            elif entry.kind is RevocationKind.USER and entry.user_id is not None and entry.below_version is not None:
                entries = self._users.setdefault(entry.user_id, {})
                below, until = entries.get(entry.reason, (0, 0.0))
                entries[entry.reason] = (max(below, entry.below_version), max(until, entry.expires_at.timestamp()))
            elif entry.kind is RevocationKind.SESSION and entry.session_id is not None:
                self._sessions[entry.session_id.int] = entry.expires_at.timestamp()
            else:
                raise ValueError(f"a {entry.kind} revocation names nobody")

    def forget_expired(self, *, now: float) -> None:
        """Forget the entries that speak of no token any more."""
        # Few have run out of perhaps a hundred thousand: to copy the others would hold the event loop.
        for key in [key for key, until in self._sessions.items() if until <= now]:
            del self._sessions[key]
        kept = {
            user: {reason: entry for reason, entry in entries.items() if entry[1] > now}
            for user, entries in self._users.items()
        }
        self._users = {user: entries for user, entries in kept.items() if entries}
