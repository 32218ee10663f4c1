"""What a presented refresh token means, how long things live, and a machine that plays everything at once."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from latchstring.core.guard.rules import is_fresh
from latchstring.core.sessions.rules import (
    TOLERATED_SKEW,
    Client,
    Lifetimes,
    RefreshLimit,
    ReuseVerdict,
    Session,
    judge,
    whole_seconds,
)
from latchstring.core.tokens.rules import CLOCK_SKEW_SECONDS

ROTATED_AT = datetime(2026, 3, 1, 12, 0, 0, 500_000, tzinfo=UTC)
GRACE = timedelta(seconds=30)
NO_GRACE = timedelta()
INSTANT = timedelta(microseconds=1)
SKEW = timedelta(seconds=CLOCK_SKEW_SECONDS)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def session(**changes: object) -> Session:
    """Returns a living session in its third generation, begun at ROTATED_AT, with changes."""
    living = Session(
        id=UUID(int=1),
        user_id=UUID(int=2),
        epoch=1,
        created_at=ROTATED_AT - HOUR,
        proven_at=ROTATED_AT - HOUR,
        methods=("pwd",),
        generation=3,
        rotated_at=ROTATED_AT,
        expires_at=whole_seconds(ROTATED_AT + HOUR),
        ends_at=whole_seconds(ROTATED_AT + DAY),
        generation_access_expires_at=whole_seconds(ROTATED_AT + HOUR / 4),
        access_expires_at=whole_seconds(ROTATED_AT + HOUR / 4),
        refreshes=5,
        refreshes_since=ROTATED_AT - MINUTE / 2,
        revoked_at=None,
        revoked_reason=None,
    )
    return replace(living, **changes)  # type: ignore[arg-type]


LIVING = session()
REVOKED = session(revoked_at=ROTATED_AT, revoked_reason="logout")
BORN_AGAIN = session(generation=2)
UNTIL_EXPIRY = LIVING.expires_at - ROTATED_AT


@pytest.mark.parametrize(
    ("row", "generation", "after", "grace", "expected"),
    [
        pytest.param(LIVING, 2, timedelta(), GRACE, ReuseVerdict.REPEATED, id="previous, at once"),
        pytest.param(LIVING, 2, GRACE, GRACE, ReuseVerdict.REPEATED, id="previous, at the end of the grace"),
        pytest.param(LIVING, 2, -SKEW, GRACE, ReuseVerdict.REPEATED, id="previous, on a clock that is a little behind"),
        pytest.param(LIVING, 2, -SKEW - INSTANT, GRACE, ReuseVerdict.CLOCKS_DIFFER, id="T16: an instant more"),
        pytest.param(
            LIVING, 2, -10 * GRACE, GRACE, ReuseVerdict.CLOCKS_DIFFER, id="T16: previous, on a clock far behind"
        ),
        pytest.param(LIVING, 1, -10 * GRACE, GRACE, ReuseVerdict.REUSED, id="two back, on a clock far behind"),
        pytest.param(REVOKED, 2, -10 * GRACE, GRACE, ReuseVerdict.ENDED, id="revoked, on a clock far behind"),
        pytest.param(LIVING, 2, GRACE + INSTANT, GRACE, ReuseVerdict.REUSED, id="previous, an instant past the grace"),
        pytest.param(LIVING, 2, timedelta(), NO_GRACE, ReuseVerdict.REUSED, id="previous, with no grace"),
        pytest.param(LIVING, 2, -10 * GRACE, NO_GRACE, ReuseVerdict.REUSED, id="previous, no grace, a clock behind"),
        pytest.param(LIVING, 1, timedelta(), GRACE, ReuseVerdict.REUSED, id="two generations back, at once"),
        pytest.param(LIVING, 0, timedelta(), GRACE, ReuseVerdict.REUSED, id="a generation that never was"),
        pytest.param(
            LIVING, 3, timedelta(), GRACE, ReuseVerdict.ENDED, id="the present one, which the row did not take"
        ),
        pytest.param(BORN_AGAIN, 3, timedelta(), GRACE, ReuseVerdict.ENDED, id="of a future the database never saw"),
        pytest.param(LIVING, 2, UNTIL_EXPIRY, DAY, ReuseVerdict.EXPIRED, id="previous, at the expiry"),
        pytest.param(LIVING, 1, UNTIL_EXPIRY, GRACE, ReuseVerdict.EXPIRED, id="older, past the expiry: no theft"),
        pytest.param(LIVING, 1, UNTIL_EXPIRY - INSTANT, GRACE, ReuseVerdict.REUSED, id="older, an instant before it"),
        pytest.param(REVOKED, 2, timedelta(), GRACE, ReuseVerdict.ENDED, id="previous, revoked"),
        pytest.param(REVOKED, 1, timedelta(), GRACE, ReuseVerdict.ENDED, id="older, revoked: theft is told once"),
        pytest.param(REVOKED, 2, UNTIL_EXPIRY, GRACE, ReuseVerdict.ENDED, id="revoked and expired"),
    ],
)
def test_a_token_that_lost_the_rotation_is_judged(
    row: Session, generation: int, after: timedelta, grace: timedelta, expected: ReuseVerdict
) -> None:
    """Only the previous generation, only within the grace, only of a living session is answered again."""
    assert judge(row, epoch=1, generation=generation, now=ROTATED_AT + after, grace=grace, limit=None) is expected


@pytest.mark.parametrize("generation", [1, 2, 3, 4])
def test_a_new_epoch_ends_every_older_session(generation: int) -> None:
    """Whatever is presented of a session that was opened before everyone was signed out has ended, and is no theft."""
    old = session(epoch=0)
    assert judge(old, epoch=1, generation=generation, now=ROTATED_AT, grace=GRACE, limit=None) is ReuseVerdict.ENDED


def test_the_rules_tolerate_the_skew_that_tokens_do() -> None:
    """T16: a token that one worker takes must not be from the future to another rule."""
    assert TOLERATED_SKEW == SKEW


HERE = Client.of(address="203.0.113.7", user_agent="Firefox")


@pytest.mark.parametrize(
    ("address", "user_agent", "expected"),
    [
        ("203.0.113.7", "Firefox", ReuseVerdict.REPEATED),
        ("203.0.113.250", "Firefox", ReuseVerdict.REPEATED),
        ("203.0.114.7", "Firefox", ReuseVerdict.REPEATED_ELSEWHERE),
        ("2001:db8::1", "Firefox", ReuseVerdict.REPEATED_ELSEWHERE),
        ("203.0.113.7", "Chrome", ReuseVerdict.REPEATED_ELSEWHERE),
        ("203.0.113.7", None, ReuseVerdict.REPEATED_ELSEWHERE),
        (None, "Firefox", ReuseVerdict.REPEATED),
        (None, "Chrome", ReuseVerdict.REPEATED_ELSEWHERE),
    ],
)
def test_a_repeat_from_elsewhere_is_told_apart(
    address: str | None, user_agent: str | None, expected: ReuseVerdict
) -> None:
    """T4: another IPv4 /24, or another User-Agent, than the rotation; an address that is not known tells nothing."""
    client = Client.of(address=address, user_agent=user_agent)
    row = session(rotated_by=HERE)
    assert judge(row, epoch=1, generation=2, now=ROTATED_AT, grace=GRACE, limit=None, client=client) is expected
    old = judge(LIVING, epoch=1, generation=2, now=ROTATED_AT, grace=GRACE, limit=None, client=client)
    assert old is ReuseVerdict.REPEATED, "a row of before does not say who rotated it"


def test_an_ipv6_network_is_a_64() -> None:
    """T4: as for the limits, whoever has one address has the 2⁶⁴ beside it."""
    first, beside, away = (
        Client.of(address=address, user_agent="") for address in ("2001:db8::1", "2001:db8::ffff", "2001:db8:0:1::1")
    )
    assert not first.differs_from(beside)
    assert first.differs_from(away)


FIVE_A_MINUTE = RefreshLimit(times=5, window=MINUTE)


@pytest.mark.parametrize(
    ("generation", "after", "expected"),
    [
        pytest.param(3, timedelta(), ReuseVerdict.TOO_OFTEN, id="the present one"),
        pytest.param(2, timedelta(), ReuseVerdict.TOO_OFTEN, id="a repeated answer"),
        pytest.param(2, MINUTE / 2 - INSTANT, ReuseVerdict.TOO_OFTEN, id="to the end of the window"),
        pytest.param(2, MINUTE / 2, ReuseVerdict.REPEATED, id="and no longer"),
        pytest.param(1, timedelta(), ReuseVerdict.REUSED, id="theft is theft, however often"),
    ],
)
def test_a_session_refreshed_too_often_goes_on(generation: int, after: timedelta, expected: ReuseVerdict) -> None:
    """Its client has to wait; it is not taken for a thief, and a thief is not let off."""
    now = ROTATED_AT + after
    assert judge(LIVING, epoch=1, generation=generation, now=now, grace=GRACE, limit=FIVE_A_MINUTE) is expected
    if expected is ReuseVerdict.TOO_OFTEN:
        assert timedelta() < FIVE_A_MINUTE.wait(LIVING, now=now) <= MINUTE
    assert not RefreshLimit(times=6, window=MINUTE).is_reached(LIVING, now=now)


@pytest.mark.parametrize(("ago", "is_new"), [(0, True), (300, True), (300.001, False), (-3, True)])
def test_a_proof_is_fresh_for_so_long(ago: float, is_new: bool) -> None:  # noqa: FBT001
    """To the instant; one by a clock that is ahead is fresh, too."""
    assert is_fresh(proven_at_unix=1_000_000, now=1_000_000 + ago, within=5 * MINUTE) is is_new


instants = st.datetimes(datetime(2026, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 -- Hypothesis adds the zone
durations = st.timedeltas(timedelta(seconds=1), timedelta(days=400))


@given(instants, durations, durations, durations)
def test_expiries_are_whole_seconds_and_never_late(
    begun: datetime, access: timedelta, refresh: timedelta, whole: timedelta
) -> None:
    """Tokens know whole seconds only: what is cut off is cut off the life, and less than one second of it."""
    lifetimes = Lifetimes(access=access, refresh=refresh, session=whole, grace=GRACE)
    for expiry, life in (
        (lifetimes.access_expiry(begun), access),
        (lifetimes.refresh_expiry(begun), refresh),
        (lifetimes.session_end(begun), whole),
    ):
        assert expiry.microsecond == 0
        assert timedelta() <= begun + life - expiry < timedelta(seconds=1)


@dataclass(frozen=True)
class Issued:
    """Both tokens of one answer."""

    epoch: int
    generation: int
    begun_at: datetime
    access_expires_at: datetime
    refresh_expires_at: datetime
    proven_at: datetime


@dataclass(frozen=True)
class Answer:
    """What a holder heard: tokens, or how the token was judged."""

    issued: Issued | None
    judged: ReuseVerdict | None = None


class SessionMachine(RuleBasedStateMachine):
    """One session, everybody who ever held a token of it, settings that change, and time.

    The row is moved as the store's conditional UPDATE moves it, and everything else is decided by the rules. (That
    the store does so, and the whole over HTTP, is tests/core/sessions/test_refresh.py.)
    """

    tokens: Bundle[Issued] = Bundle("tokens")

    @initialize(
        target=tokens,
        access=st.integers(1, 3_600),
        refresh=st.integers(1, 7_200),
        whole=st.integers(7_200, 20_000),
        grace=st.sampled_from([0, 1, 30]),
        times=st.sampled_from([1, 3, 1_000]),
    )
    def sign_in(self, access: int, refresh: int, whole: int, grace: int, times: int) -> Issued:
        """Opens the session."""
        self.lifetimes = Lifetimes(
            access=timedelta(seconds=access),
            refresh=timedelta(seconds=refresh),
            session=timedelta(seconds=whole),
            grace=timedelta(seconds=grace),
        )
        self.limit = RefreshLimit(times=times, window=MINUTE)
        self.epoch = 1
        self.now = ROTATED_AT
        self.row = opened(lifetimes=self.lifetimes, now=self.now, epoch=self.epoch)
        self.first_answers: dict[int, Issued] = {}
        self.everything_issued: list[Issued] = []
        self.answered_at: list[datetime] = []
        self.was_revoked = False
        return self._issue()

    @rule(seconds=st.one_of(st.sampled_from([0.001, 1, 30, 31, 60]), st.floats(0, 4_000)))
    def wait(self, seconds: float) -> None:
        """Lets time pass."""
        self.now += timedelta(seconds=seconds)

    @rule(access=st.integers(1, 3_600))
    def deploy(self, access: int) -> None:
        """The life of access tokens is set anew, on the instance that answers next."""
        self.lifetimes = replace(self.lifetimes, access=timedelta(seconds=access))

    @rule(target=tokens, token=tokens)
    def renew(self, token: Issued) -> Issued:
        """Somebody presents a token, old or new; who gets nothing keeps what they have."""
        rotations_before = self.row.generation
        answer = self._present(token)
        if answer.judged is ReuseVerdict.REUSED:
            assert not self.is_over, "theft is told once"
            self._revoke()
        if answer.issued is None:
            return token
        assert not self.is_over, "revoked stays revoked"
        assert token.refresh_expires_at > self.now
        assert token.generation == self.row.generation - 1, "both ways lead to the one living generation"
        if rotations_before == self.row.generation:
            assert self.now - self.row.rotated_at <= self.lifetimes.grace
            assert self.lifetimes.grace
        self.answered_at.append(self.now)
        return answer.issued

    @rule(target=tokens, token=tokens, comes_along=st.booleans())
    def confirm(self, token: Issued, comes_along: bool) -> Issued:  # noqa: FBT001
        """Its owner proves again who they are, by any access token that lives; the refresh token may come along."""
        if self.is_over or token.access_expires_at <= self.now or self.row.expires_at <= self.now:
            return token
        if comes_along and token.generation == self.row.generation:
            self._next_generation()
        self.row = replace(self.row, proven_at=self.now)
        issued = self._issue()
        assert issued.proven_at == self.now
        return issued

    @precondition(lambda self: not self.is_over)
    @rule()
    def log_out(self) -> None:
        """Its owner signs out."""
        self._revoke()

    @precondition(lambda self: not self.is_over)
    @rule()
    def sign_everyone_out(self) -> None:
        """An operator begins an epoch; the row stays as it is."""
        self.epoch += 1

    @property
    def is_over(self) -> bool:
        """Whether it was ended, one way or the other."""
        return self.was_revoked or self.row.epoch < self.epoch

    @invariant()
    def at_most_one_generation_lives(self) -> None:
        """Of all tokens ever issued, those that still rotate are of one generation; after a revocation, none are."""
        living = {token.generation for token in self.everything_issued if self._would_rotate(token)}
        assert living <= {self.row.generation}
        assert not (living and self.is_over)

    @invariant()
    def no_token_outlives_its_session(self) -> None:
        """Nothing expires later than the session ends, and no access token later than the row remembers."""
        for token in self.everything_issued:
            assert token.refresh_expires_at <= self.row.ends_at
            assert token.access_expires_at <= self.row.access_expires_at <= self.row.ends_at

    @invariant()
    def no_window_holds_more_refreshes_than_the_limit(self) -> None:
        """Of the windows that the row counts by, one after the other."""
        in_window = [at for at in self.answered_at if at >= self.row.refreshes_since]
        assert len(in_window) <= self.limit.times
        assert self.row.refreshes <= self.limit.times

    def _present(self, token: Issued) -> Answer:
        if token.refresh_expires_at <= self.now:
            return Answer(None, ReuseVerdict.EXPIRED)
        if self._would_rotate(token) and not self.limit.is_reached(self.row, now=self.now):
            self._count()
            self._next_generation()
            return Answer(self._issue())
        judged = judge(
            self.row,
            epoch=self.epoch,
            generation=token.generation,
            now=self.now,
            grace=self.lifetimes.grace,
            limit=self.limit,
        )
        if judged is ReuseVerdict.REPEATED:
            self._count()
            return Answer(self._issue(), judged)
        return Answer(None, judged)

    def _would_rotate(self, token: Issued) -> bool:
        return token.generation == self.row.generation and not self.is_over and self.row.expires_at > self.now

    def _next_generation(self) -> None:
        access_expiry = min(self.lifetimes.access_expiry(self.now), self.row.ends_at)
        self.row = replace(
            self.row,
            generation=self.row.generation + 1,
            rotated_at=self.now,
            expires_at=min(self.lifetimes.refresh_expiry(self.now), self.row.ends_at),
            generation_access_expires_at=access_expiry,
            access_expires_at=max(self.row.access_expires_at, access_expiry),
        )

    def _count(self) -> None:
        if self.row.refreshes_since + self.limit.window <= self.now:
            self.row = replace(self.row, refreshes=1, refreshes_since=self.now)
        else:
            self.row = replace(self.row, refreshes=self.row.refreshes + 1)

    def _issue(self) -> Issued:
        issued = Issued(
            epoch=self.row.epoch,
            generation=self.row.generation,
            begun_at=self.row.rotated_at,
            access_expires_at=self.row.generation_access_expires_at,
            refresh_expires_at=self.row.expires_at,
            proven_at=self.row.proven_at,
        )
        first = self.first_answers.setdefault(issued.generation, issued)
        assert replace(issued, proven_at=first.proven_at) == first, "a repeated answer is the first one"
        self.everything_issued.append(issued)
        return issued

    def _revoke(self) -> None:
        self.was_revoked = True
        self.row = replace(self.row, revoked_at=self.now, revoked_reason="logout")


def opened(*, lifetimes: Lifetimes, now: datetime, epoch: int) -> Session:
    """Returns the row of a session that was opened now."""
    ends_at = lifetimes.session_end(now)
    access_expires_at = min(lifetimes.access_expiry(now), ends_at)
    return session(
        epoch=epoch,
        created_at=now,
        proven_at=now,
        generation=1,
        rotated_at=now,
        expires_at=min(lifetimes.refresh_expiry(now), ends_at),
        ends_at=ends_at,
        generation_access_expires_at=access_expires_at,
        access_expires_at=access_expires_at,
        refreshes=0,
        refreshes_since=now,
    )


TestSessionMachine = SessionMachine.TestCase
TestSessionMachine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
