"""What a presented refresh token means, how long things live, and a machine that plays everything at once."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from latchstring.core.sessions.rules import (
    Lifetimes,
    Presented,
    Session,
    access_token_expiry,
    judge,
    whole_seconds,
)

ROTATED_AT = datetime(2026, 3, 1, 12, 0, 0, 500_000, tzinfo=UTC)
GRACE = timedelta(seconds=30)
NO_GRACE = timedelta()
INSTANT = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def session(**changes: object) -> Session:
    """Returns a living session in its third generation, begun at ROTATED_AT, with changes."""
    living = Session(
        id=UUID(int=1),
        user_id=UUID(int=2),
        created_at=ROTATED_AT - HOUR,
        proven_at=ROTATED_AT - HOUR,
        methods=("pwd",),
        generation=3,
        rotated_at=ROTATED_AT,
        expires_at=whole_seconds(ROTATED_AT + HOUR),
        ends_at=whole_seconds(ROTATED_AT + DAY),
        access_expires_at=whole_seconds(ROTATED_AT + HOUR / 4),
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
        pytest.param(LIVING, 2, timedelta(), GRACE, Presented.REPEATED, id="previous, at once"),
        pytest.param(LIVING, 2, GRACE, GRACE, Presented.REPEATED, id="previous, at the end of the grace"),
        pytest.param(LIVING, 2, -10 * GRACE, GRACE, Presented.REPEATED, id="previous, on a clock that is behind"),
        pytest.param(LIVING, 2, GRACE + INSTANT, GRACE, Presented.REUSED, id="previous, an instant past the grace"),
        pytest.param(LIVING, 2, timedelta(), NO_GRACE, Presented.REUSED, id="previous, with no grace"),
        pytest.param(LIVING, 2, -10 * GRACE, NO_GRACE, Presented.REUSED, id="previous, no grace, a clock behind"),
        pytest.param(LIVING, 1, timedelta(), GRACE, Presented.REUSED, id="two generations back, at once"),
        pytest.param(LIVING, 0, timedelta(), GRACE, Presented.REUSED, id="a generation that never was"),
        pytest.param(LIVING, 3, timedelta(), GRACE, Presented.ENDED, id="the present one, which the row did not take"),
        pytest.param(BORN_AGAIN, 3, timedelta(), GRACE, Presented.ENDED, id="of a future the database never saw"),
        pytest.param(LIVING, 2, UNTIL_EXPIRY, DAY, Presented.EXPIRED, id="previous, at the expiry"),
        pytest.param(LIVING, 1, UNTIL_EXPIRY, GRACE, Presented.EXPIRED, id="older, past the expiry: no theft"),
        pytest.param(LIVING, 1, UNTIL_EXPIRY - INSTANT, GRACE, Presented.REUSED, id="older, an instant before it"),
        pytest.param(REVOKED, 2, timedelta(), GRACE, Presented.ENDED, id="previous, revoked"),
        pytest.param(REVOKED, 1, timedelta(), GRACE, Presented.ENDED, id="older, revoked: theft is told once"),
        pytest.param(REVOKED, 2, UNTIL_EXPIRY, GRACE, Presented.ENDED, id="revoked and expired"),
    ],
)
def test_a_token_that_lost_the_rotation_is_judged(
    row: Session, generation: int, after: timedelta, grace: timedelta, expected: Presented
) -> None:
    """Only the previous generation, only within the grace, only of a living session is answered again."""
    assert judge(row, generation=generation, now=ROTATED_AT + after, grace=grace) is expected


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


@given(durations, durations, durations)
def test_an_access_token_never_outlives_what_the_row_promised(
    access: timedelta, promised: timedelta, left: timedelta
) -> None:
    """A revocation is forgotten by `access_expires_at`: a raised setting must not sign beyond it, nor past the end."""
    row = session(
        access_expires_at=whole_seconds(ROTATED_AT + promised),
        ends_at=whole_seconds(ROTATED_AT + left),
    )
    lifetimes = Lifetimes(access=access, refresh=HOUR, session=DAY, grace=GRACE)
    expiry = access_token_expiry(row, lifetimes)
    assert expiry == min(lifetimes.access_expiry(ROTATED_AT), row.access_expires_at, row.ends_at)
    assert expiry.microsecond == 0


@dataclass(frozen=True)
class Issued:
    """Both tokens of one answer."""

    generation: int
    issued_at: datetime
    access_expires_at: datetime
    refresh_expires_at: datetime


@dataclass(frozen=True)
class Answer:
    """What a holder heard: tokens, or how the token was judged."""

    issued: Issued | None
    judged: Presented | None = None


class SessionMachine(RuleBasedStateMachine):
    """One session, everybody who ever held a token of it, and time.

    The row is moved as the store's conditional UPDATE moves it, and everything else is decided by the rules. (That
    the store does so, and the whole over HTTP, is tests/rooms/test_sessions.py.)
    """

    tokens: Bundle[Issued] = Bundle("tokens")

    @initialize(
        target=tokens,
        access=st.integers(1, 3_600),
        refresh=st.integers(1, 7_200),
        whole=st.integers(7_200, 20_000),
        grace=st.sampled_from([0, 1, 30]),
    )
    def sign_in(self, access: int, refresh: int, whole: int, grace: int) -> Issued:
        """Opens the session."""
        self.lifetimes = Lifetimes(
            access=timedelta(seconds=access),
            refresh=timedelta(seconds=refresh),
            session=timedelta(seconds=whole),
            grace=timedelta(seconds=grace),
        )
        self.now = ROTATED_AT
        ends_at = self.lifetimes.session_end(self.now)
        self.row = session(
            generation=1,
            expires_at=min(self.lifetimes.refresh_expiry(self.now), ends_at),
            ends_at=ends_at,
            access_expires_at=min(self.lifetimes.access_expiry(self.now), ends_at),
        )
        self.first_answers: dict[int, Issued] = {}
        self.everything_issued: list[Issued] = []
        self.was_revoked = False
        return self._issue()

    @rule(seconds=st.one_of(st.sampled_from([0.001, 1, 30, 31]), st.floats(0, 4_000)))
    def wait(self, seconds: float) -> None:
        """Lets time pass."""
        self.now += timedelta(seconds=seconds)

    @rule(target=tokens, token=tokens)
    def renew(self, token: Issued) -> Issued:
        """Somebody presents a token, old or new; who gets nothing keeps what they have."""
        rotations_before = self.row.generation
        answer = self._present(token)
        if answer.judged is Presented.REUSED:
            assert not self.was_revoked, "theft is told once"
            self._revoke()
        if answer.issued is None:
            return token
        assert not self.was_revoked, "revoked stays revoked"
        assert token.refresh_expires_at > self.now
        assert token.generation == self.row.generation - 1, "both ways lead to the one living generation"
        if rotations_before == self.row.generation:
            assert self.now - self.row.rotated_at <= self.lifetimes.grace
            assert self.lifetimes.grace
        return answer.issued

    @precondition(lambda self: not self.was_revoked)
    @rule()
    def log_out(self) -> None:
        """Its owner signs out."""
        self._revoke()

    @invariant()
    def at_most_one_generation_lives(self) -> None:
        """Of all tokens ever issued, those that still rotate are of one generation; after a revocation, none are."""
        living = {token.generation for token in self.everything_issued if self._would_rotate(token)}
        assert living <= {self.row.generation}
        assert not (living and self.was_revoked)

    @invariant()
    def no_token_outlives_its_session(self) -> None:
        """Nothing expires later than the session ends, and no access token later than the row remembers."""
        for token in self.everything_issued:
            assert token.refresh_expires_at <= self.row.ends_at
            assert token.access_expires_at <= self.row.access_expires_at <= self.row.ends_at

    def _present(self, token: Issued) -> Answer:
        if token.refresh_expires_at <= self.now:
            return Answer(None, Presented.EXPIRED)
        if self._would_rotate(token):
            access_expiry = min(self.lifetimes.access_expiry(self.now), self.row.ends_at)
            self.row = replace(
                self.row,
                generation=self.row.generation + 1,
                rotated_at=self.now,
                expires_at=min(self.lifetimes.refresh_expiry(self.now), self.row.ends_at),
                access_expires_at=max(self.row.access_expires_at, access_expiry),
            )
            return Answer(self._issue())
        judged = judge(self.row, generation=token.generation, now=self.now, grace=self.lifetimes.grace)
        if judged is Presented.REPEATED:
            return Answer(self._issue(), judged)
        return Answer(None, judged)

    def _would_rotate(self, token: Issued) -> bool:
        return (
            token.generation == self.row.generation and self.row.revoked_at is None and self.row.expires_at > self.now
        )

    def _issue(self) -> Issued:
        issued = Issued(
            generation=self.row.generation,
            issued_at=self.row.rotated_at,
            access_expires_at=access_token_expiry(self.row, self.lifetimes),
            refresh_expires_at=self.row.expires_at,
        )
        assert self.first_answers.setdefault(issued.generation, issued) == issued, "a repeated answer is the first one"
        self.everything_issued.append(issued)
        return issued

    def _revoke(self) -> None:
        self.was_revoked = True
        self.row = replace(self.row, revoked_at=self.now, revoked_reason="logout")


TestSessionMachine = SessionMachine.TestCase
TestSessionMachine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
