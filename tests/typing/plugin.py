"""What a type checker makes of the fixtures of `latchstring.testing`. Nothing here is run."""

from typing import assert_type

from starlette.testclient import TestClient

from latchstring import User
from latchstring.testing import ManualClock, RefreshStorm, SignInAs, StormReport


def test_something(client: TestClient, sign_in_as: SignInAs, refresh_storm: RefreshStorm, clock: ManualClock) -> None:
    ada = sign_in_as("ada@example.com", roles=["admin"])
    assert_type(ada, TestClient)
    report = refresh_storm(ada, tabs=10)
    assert_type(report, StormReport)
    assert_type(report.everyone_is_signed_in, bool)
    clock.advance(minutes=16)


def test_somebody(sign_in_as: SignInAs, user: User) -> None:
    assert_type(sign_in_as(user, bearer=True), TestClient)
    sign_in_as(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
