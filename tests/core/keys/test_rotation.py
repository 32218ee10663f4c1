"""The life of a key, as pure decisions: what each verb changes, and what no sequence of them can break."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from latchstring.core.keys.rotation import (
    KeyChange,
    KeyConflict,
    KeyDates,
    KeyState,
    is_due,
    living_longer,
    publication_lead,
    retirement,
    retirement_at_once,
    rotation,
    signing_key,
)
from latchstring.core.keys.settings import Algorithm
from latchstring.foundation.clock import MAX_CLOCK_SKEW

START = datetime(2026, 1, 1, tzinfo=UTC)
APART = timedelta(seconds=4)
"""How far instances' clocks are from the operator's. A lead has ten seconds for that."""
LEAD, LIFE = timedelta(minutes=10), timedelta(hours=1)


def key(kid: str = "a", *, signs_from: datetime = START, published_at: datetime | None = None) -> KeyDates:
    """Returns a key that nothing has ended."""
    return KeyDates(
        kid=kid,
        algorithm=Algorithm.ES256,
        published_at=published_at or signs_from,
        signs_from=signs_from,
        retired_at=None,
        verifies_until=None,
        token_life=LIFE,
    )


def carried_out(keys: list[KeyDates], plan: KeyChange, *, now: datetime) -> list[KeyDates]:
    """Returns the keys as they are after a change; a new one is called after its place."""
    changed = {each.kid: each for each in plan.changed}
    after = [changed.get(each.kid, each) for each in keys]
    if plan.new_signs_from is not None:
        after.append(key(f"{len(keys)}", signs_from=plan.new_signs_from, published_at=now))
    return after


def planned(plan: KeyChange | KeyConflict) -> KeyChange:
    assert isinstance(plan, KeyChange)
    return plan


@pytest.mark.parametrize(
    ("hours", "state"),
    [
        (-0.001, KeyState.PENDING),
        (0, KeyState.ACTIVE),
        (9.999, KeyState.ACTIVE),
        (10, KeyState.RETIRED),
        (11.999, KeyState.RETIRED),
        (12, KeyState.GONE),
    ],
)
def test_the_life_of_a_key(hours: float, state: KeyState) -> None:
    """Published, signing, verifying only, gone: the dates and the time say which, each from its instant on."""
    retired = replace(key(), retired_at=START + timedelta(hours=10), verifies_until=START + timedelta(hours=12))
    now = START + timedelta(hours=hours)
    assert retired.state(now=now) is state
    assert key().state(now=now) is (KeyState.PENDING if hours < 0 else KeyState.ACTIVE)


@pytest.mark.parametrize("hours", [-10_000, -1, 0, 1])
def test_a_key_ended_at_once_is_gone_by_any_clock(hours: float) -> None:
    """An instance whose clock is behind, however far, takes no token of it."""
    ended = replace(key(), retired_at=START, verifies_until=START)
    assert ended.state(now=START + timedelta(hours=hours)) is KeyState.GONE


def test_a_rotation_is_one_change() -> None:
    """The new key signs after its lead; the old one until then, and verifies until its last token has expired."""
    plan = planned(rotation([key()], now=START, lead=LEAD))
    (old,) = plan.changed
    assert plan.new_signs_from == old.retired_at == START + LEAD
    assert old.verifies_until == START + LEAD + LIFE + MAX_CLOCK_SKEW
    keys = carried_out([key()], plan, now=START)
    for minutes, signs in ((0, "a"), (9.999, "a"), (10, "1"), (60, "1")):
        found = signing_key(keys, now=START + timedelta(minutes=minutes))
        assert found is not None
        assert found.kid == signs


def test_what_each_verb_does_in_each_state() -> None:
    """A conflict says why; a pending key that is withdrawn leaves the one before as it was."""
    rotated = carried_out([key()], planned(rotation([key()], now=START, lead=LEAD)), now=START)
    later, end = START + LEAD, START + LEAD + LIFE + MAX_CLOCK_SKEW
    assert rotation([], now=START, lead=LEAD) is KeyConflict.NOTHING_TO_ROTATE
    assert rotation(rotated, now=START, lead=LEAD) is KeyConflict.UNDER_WAY
    assert isinstance(rotation(rotated, now=later, lead=LEAD), KeyChange)

    def calmly(kid: str, now: datetime) -> KeyChange | KeyConflict:
        return retirement(rotated, kid, now=now, lead=LEAD)

    def at_once(kid: str, now: datetime) -> KeyChange | KeyConflict:
        return retirement_at_once(rotated, kid, now=now)

    for end_of, gone_from in ((calmly, end), (at_once, end + MAX_CLOCK_SKEW)):
        assert end_of("x", START) is KeyConflict.UNKNOWN
        assert isinstance(end_of("1", gone_from), KeyChange)
        assert end_of("a", gone_from) is KeyConflict.GONE_ALREADY
    withdrawn = carried_out(rotated, planned(calmly("1", START)), now=START)
    assert withdrawn[0] == key(), "it goes on as if nothing had been"
    assert withdrawn[1].state(now=later) is KeyState.RETIRED
    assert retirement(rotated, "a", now=START, lead=LEAD) is KeyConflict.UNDER_WAY
    assert retirement(rotated, "a", now=later, lead=LEAD) is KeyConflict.RETIRED_ALREADY
    assert retirement([key()], "a", now=START, lead=LEAD) == rotation([key()], now=START, lead=LEAD)


def test_the_only_key_is_not_withdrawn() -> None:
    """Made by an instance whose clock is ahead, it is pending to the operator's; and nobody else could sign."""
    ahead = key(signs_from=START + timedelta(minutes=3))
    assert retirement([ahead], "a", now=START, lead=LEAD) is KeyConflict.UNDER_WAY
    plan = planned(retirement_at_once([ahead], "a", now=START))
    assert plan.new_signs_from == START
    assert [each.kid for each in plan.changed] == ["a"]


@pytest.mark.parametrize("kid", ["0", "1", "2"])
def test_at_once_ends_every_key_whichever_is_named(kid: str) -> None:
    """T37: whoever stole one has the pending and the retired ones too. What takes their place is made now."""
    keys = [key("0")]
    for hours in (0, 1):
        now = START + timedelta(hours=hours)
        keys = carried_out(keys, planned(rotation(keys, now=now, lead=LEAD)), now=now)
    now = START + timedelta(hours=1, minutes=1)
    assert [each.state(now=now) for each in keys] == [KeyState.RETIRED, KeyState.ACTIVE, KeyState.PENDING]
    plan = planned(retirement_at_once(keys, kid, now=now))
    assert plan.new_signs_from == now
    after = carried_out(keys, plan, now=now)
    for clock in (now - timedelta(hours=9), now, now + timedelta(hours=9)):
        assert [each.state(now=clock) for each in after[:-1]] == [KeyState.GONE] * 3
    signing = signing_key(after, now=now)
    assert signing is not None
    assert signing.kid == "3"


def test_at_once_ends_what_a_clock_that_is_behind_still_takes() -> None:
    """T37: gone by the operator's clock, a retired key verifies for ten minutes more where the clock is behind."""
    retired = replace(key("0"), retired_at=START, verifies_until=START + timedelta(hours=2))
    now, behind = START + timedelta(hours=2, minutes=1), START + timedelta(hours=1, minutes=51)
    after = carried_out([retired, key("1")], planned(retirement_at_once([retired, key("1")], "1", now=now)), now=now)
    assert after[0].state(now=behind) is KeyState.GONE


def test_age() -> None:
    """A key is due when it has signed for so long, and not while its successor waits."""
    age = timedelta(days=90)
    assert not is_due([key()], now=START + age - timedelta(seconds=1), max_age=age)
    assert is_due([key()], now=START + age, max_age=age)
    rotated = carried_out([key()], planned(rotation([key()], now=START + age, lead=LEAD)), now=START + age)
    assert not is_due(rotated, now=START + age, max_age=age)
    assert not is_due(rotated, now=START + age + LEAD, max_age=age)
    assert not is_due([], now=START, max_age=age)


def test_tokens_and_caches_that_live_longer_are_noted() -> None:
    """Of whatever instance gives them out: retired keys wait for their last, new ones for the slowest cache."""
    rotated = carried_out([key()], planned(rotation([key()], now=START, lead=LEAD)), now=START)
    longer, hour = timedelta(days=1), timedelta(hours=1)
    changed = living_longer(rotated, now=START + LEAD, token_life=longer, cache_life=hour)
    assert [each.kid for each in changed] == ["a", "1"]
    assert changed[0].verifies_until == START + LEAD + longer + MAX_CLOCK_SKEW
    assert changed[1].verifies_until is None
    assert living_longer(changed, now=START, token_life=LIFE, cache_life=timedelta()) == ()
    assert publication_lead([], cache_life=timedelta(minutes=5)) == timedelta(seconds=610)
    assert publication_lead(changed, cache_life=timedelta(minutes=5)) == timedelta(hours=2, seconds=10)
    ended = replace(key(), retired_at=START, verifies_until=START)
    assert living_longer([ended], now=START, token_life=longer) == (), "what ended at once does not come back"


class KeyRingMachine(RuleBasedStateMachine):
    """Operators do what they like, when they like; instances' clocks are up to four seconds apart."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.keys: list[KeyDates] = []
        self.calm: set[str] = set()
        self.signed: dict[str, datetime] = {}
        self.ended: set[str] = set()

    @initialize()
    def first_key(self) -> None:
        self.keys = [key("0")]

    @rule(seconds=st.sampled_from([1, 30, 299, 597, 600, 601, 3_600, 7_800, 90_000]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def rotate(self) -> None:
        self._apply(rotation(self.keys, now=self.now, lead=LEAD), is_calm=True)

    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        kid = data.draw(st.sampled_from([each.kid for each in self.keys]))
        self._apply(retirement(self.keys, kid, now=self.now, lead=LEAD), is_calm=True)

    @precondition(lambda self: len(self.keys) > 1)
    @rule(data=st.data())
    def retire_at_once(self, data: st.DataObject) -> None:
        kid = data.draw(st.sampled_from([each.kid for each in self.keys]))
        plan = retirement_at_once(self.keys, kid, now=self.now)
        if isinstance(plan, KeyChange):
            self.ended |= {each.kid for each in self.keys}
        self._apply(plan, is_calm=False)

    def _apply(self, plan: KeyChange | KeyConflict, *, is_calm: bool) -> None:
        if isinstance(plan, KeyConflict):
            return
        self.keys = carried_out(self.keys, plan, now=self.now)
        if is_calm and plan.new_signs_from is not None:
            self.calm.add(self.keys[-1].kid)

    @invariant()
    def somebody_signs_and_was_published_long_enough(self) -> None:
        for skew in (-APART, timedelta(), APART):
            if not self.keys:
                return
            now = self.now + skew
            signing = signing_key(self.keys, now=now)
            assert signing is not None
            assert signing.state(now=now) in {KeyState.ACTIVE, KeyState.PENDING}
            self.signed[signing.kid] = max(self.signed.get(signing.kid, now), now)
            if signing.kid in self.calm:
                assert self.now - signing.published_at >= LEAD - APART

    @invariant()
    def what_was_signed_is_verified_until_it_expires(self) -> None:
        by_kid = {each.kid: each for each in self.keys}
        for kid, last_signed in self.signed.items():
            if kid not in self.ended and self.now < last_signed + LIFE:
                assert by_kid[kid].state(now=self.now) is not KeyState.GONE

    @invariant()
    def what_ended_at_once_is_over(self) -> None:
        for each in self.keys:
            if each.kid in self.ended:
                for hours in (-1, 0, 1):
                    assert each.state(now=self.now + timedelta(hours=hours)) is KeyState.GONE

    @invariant()
    def at_most_one_key_is_waiting(self) -> None:
        assert sum(each.state(now=self.now) is KeyState.PENDING for each in self.keys) <= 1


KeyRingMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=25, deadline=None)
TestKeyRing = KeyRingMachine.TestCase
