"""The revoked set after a restore: what it read from the database of before no longer counts."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from latchstring.core.revocations.revoked import RevokedSet
from latchstring.core.revocations.rules import NEVER, Revocation, RevocationKind, RevocationReason
from tests.support.issued import a_caller

NOW = int(datetime(2026, 11, 28, tzinfo=UTC).timestamp())
USER_ID = uuid4()


def disabled(user_id: UUID, *, below: int) -> Revocation:
    return Revocation(RevocationKind.USER, None, user_id, below, RevocationReason.USER_DISABLED, NEVER)


def begun(epoch: int, reason: RevocationReason) -> Revocation:
    return Revocation(RevocationKind.EVERYONE, None, None, epoch, reason, NEVER)


@pytest.mark.parametrize("reason", [RevocationReason.RESTORED, RevocationReason.OPERATOR])
def test_a_user_disabled_after_the_copy_is_let_in_after_the_restore(reason: RevocationReason) -> None:
    """With the claims version of the copy, which is lower than the one that was revoked. Only after a restore."""
    revoked = RevokedSet()
    revoked.add([disabled(USER_ID, below=5)])
    revoked.add([begun(100, reason)])
    anew = a_caller(now=NOW, user_id=USER_ID, epoch=100, claims_version=3)
    assert (revoked.reason_for(anew) is None) is (reason is RevocationReason.RESTORED)
    assert revoked.reason_for(a_caller(now=NOW, user_id=USER_ID, epoch=99, claims_version=9)) is not None


def test_what_is_revoked_after_a_restore_counts() -> None:
    """In the same read, in whichever order, and when the epoch's entry is read again, as it is each minute."""
    epoch, entry = begun(100, RevocationReason.RESTORED), disabled(USER_ID, below=5)
    caller = a_caller(now=NOW, user_id=USER_ID, epoch=100, claims_version=3)
    for batches in ([[entry, epoch]], [[epoch, entry]], [[epoch], [entry]], [[epoch], [entry], [epoch]]):
        revoked = RevokedSet()
        for batch in batches:
            revoked.add(batch)
        assert revoked.reason_for(caller) == RevocationReason.USER_DISABLED


def test_a_second_restore_by_a_clock_that_is_behind() -> None:
    """Its epoch is lower than the first one's, which the copy does not have. New sessions get it, and are let in."""
    revoked = RevokedSet()
    revoked.add([begun(5, RevocationReason.OPERATOR), begun(100, RevocationReason.RESTORED)])
    # The second copy, read again as a whole each minute.
    for _ in range(2):
        revoked.add([begun(5, RevocationReason.OPERATOR), begun(98, RevocationReason.RESTORED)])
        assert revoked.reason_for(a_caller(now=NOW, epoch=98)) is None
        assert revoked.reason_for(a_caller(now=NOW, epoch=97)) == RevocationReason.OPERATOR
    # What begins after it counts, and the first one's entry, known already, ends nothing any more.
    revoked.add([begun(101, RevocationReason.OPERATOR), begun(98, RevocationReason.RESTORED)])
    assert revoked.reason_for(a_caller(now=NOW, epoch=100)) == RevocationReason.OPERATOR
