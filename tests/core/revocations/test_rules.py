"""Which number the next epoch has: none that was given before, whatever the clocks say and the copies know."""

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from latchstring.core.revocations.rules import RevocationReason, next_epoch

NOW = datetime(2026, 11, 28, tzinfo=UTC)


def test_a_number_follows_the_clock_and_never_goes_back() -> None:
    unix = int(NOW.timestamp())
    assert next_epoch(0, reason=RevocationReason.OPERATOR, now=NOW) == unix
    assert next_epoch(unix, reason=RevocationReason.OPERATOR, now=NOW) == unix + 1
    assert next_epoch(7, reason=RevocationReason.RESTORED, now=NOW) == unix + 3600
    assert next_epoch(unix + 9000, reason=RevocationReason.RESTORED, now=NOW) == unix + 9001
    assert next_epoch(0, reason=RevocationReason.OPERATOR, now=datetime(2100, 1, 1, tzinfo=UTC)) > 2**31


class Copies(RuleBasedStateMachine):
    """Operators whose clocks differ by less than an hour, copies, and restores, all of them by one clock.

    Between two epochs passes a second at least.
    """

    @initialize()
    def begins(self) -> None:
        self.now = NOW
        self.stored = 0
        self.copies = [0]
        self.newest = 0
        """The highest number that a token may have."""
        self.is_above_all = True

    def _begin(self, reason: RevocationReason, now: datetime) -> None:
        self.now += timedelta(seconds=1)
        self.stored = next_epoch(self.stored, reason=reason, now=now + timedelta(seconds=1))
        self.is_above_all = self.stored > self.newest
        self.newest = max(self.newest, self.stored)

    @rule(skew=st.integers(-3599, 3599))
    def everyone_is_signed_out(self, skew: int) -> None:
        self._begin(RevocationReason.OPERATOR, self.now + timedelta(seconds=skew))

    @rule(seconds=st.integers(0, 10**7))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def a_copy_is_taken(self) -> None:
        self.copies.append(self.stored)

    @rule(which=st.integers(0, 100))
    def a_copy_is_put_back(self, which: int) -> None:
        self.stored = self.copies[which % len(self.copies)]
        self._begin(RevocationReason.RESTORED, self.now)

    @invariant()
    def no_token_of_before_is_of_the_new_epoch(self) -> None:
        assert self.is_above_all


TestCopies = Copies.TestCase
