"""The revoked set: the entries of the revocation feed in memory, and whether one of them applies to a caller.

No I/O, so that the verifier in another service uses the same set.
"""

from collections.abc import Iterable, Mapping
from uuid import UUID

from latchstring.core.caller import Caller
from latchstring.core.revocations.rules import Revocation, RevocationKind, RevocationReason


def _weight(reason: str) -> int:
    """Return the order in which a user's entries count: deleted before ended, ended before changed claims."""
    return {RevocationReason.USER_DELETED.value: 0, RevocationReason.CLAIMS_CHANGED.value: 2}.get(reason, 1)


def newest_epoch(revocations: Iterable[Revocation]) -> int:
    """Return the newest epoch that the entries begin; 0 if they begin none."""
    begun = (entry.below_version or 0 for entry in revocations if entry.kind is RevocationKind.EVERYONE)
    return max(begun, default=0)


class RevokedSet:
    """The revocations that apply to tokens which have not expired."""

    def __init__(self) -> None:
        # Keyed by the id's number: a UUID is twice as large, and computes its hash in Python at each request.
        self._sessions: dict[int, float] = {}
        self._users: dict[UUID, dict[str, tuple[int, float]]] = {}
        self._epoch = 0
        self._restored: set[int] = set()
        """The epochs that began after a restore."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """How many sessions and users have entries."""
        return {"session": len(self._sessions), "user": len(self._users)}

    def reason_for(self, caller: Caller) -> str | None:
        """Return why the caller's token is refused, as a `RevocationReason` or a newer version's; None if it is not."""
        # The user's entries first: a deleted user is "not found", also if the session has ended as well.
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
        # Changed claims come last: that code makes the client refresh, which fails if the session has ended.
        return of_user

    def add(self, revocations: Iterable[Revocation]) -> None:
        """Add entries. Adding one again changes nothing, and none is weakened, except by an epoch after a restore."""
        revocations = tuple(revocations)
        restored = {entry.below_version or 0 for entry in revocations if entry.reason == RevocationReason.RESTORED}
        if not restored <= self._restored:
            # What ended after the copy was taken is not in the database any more, and counts only for tokens of
            # before, which the epoch refuses. A user who was disabled then must be able to sign in now. After a second
            # restore, by a clock that is behind the first one's, the epoch is lower: the database's is the one that
            # new sessions get.
            self._sessions, self._users, self._epoch = {}, {}, max(restored - self._restored)
            self._restored |= restored
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
                # Dropping an entry that makes no sense would leave a session active that was ended.
                raise ValueError(f"a revocation of kind {entry.kind} without its subject")

    def forget_expired(self, *, now: float) -> None:
        """Drop the entries whose tokens have all expired, by `now` in seconds since 1970."""
        # Few of perhaps a hundred thousand have expired: copying the others would hold the event loop.
        for key in [key for key, until in self._sessions.items() if until <= now]:
            del self._sessions[key]
        kept = {
            user: {reason: entry for reason, entry in entries.items() if entry[1] > now}
            for user, entries in self._users.items()
        }
        self._users = {user: entries for user, entries in kept.items() if entries}
