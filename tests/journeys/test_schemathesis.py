"""Schemathesis: the OpenAPI document and the application must agree about whatever a generator thinks of."""

import asyncio
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CheckFunction
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from starlette.types import ASGIApp, Receive, Scope, Send

from latchstring.apps.server import build_app
from latchstring.features.revocation_feed.actions import FeedTokens
from latchstring.foundation.events import OPERATOR
from tests.support.service import ADDRESS, cheap_settings, credentials, registration, running_service

EXAMPLES = 40

# Checks that can't hold for an operation, and why.
EXCLUDED: dict[str, list[CheckFunction]] = {
    "register": [positive_data_acceptance],  # no schema can say that both passwords must be the same
    "login": [positive_data_acceptance],  # a generated password is nobody's
    "confirm": [positive_data_acceptance],  # likewise
    "change_password": [positive_data_acceptance],  # likewise
    "get_revocations": [negative_data_rejection],  # whatever it leaves out, the token is sent along
    "token": [positive_data_acceptance],  # nor is a generated grant type a grant type, or a token one of ours
}


@pytest.fixture(scope="module")
def database_url(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("schemathesis") / "latchstring.db"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


SignIn = Callable[[], str]


@pytest.fixture(scope="module")
def sign_in(database_url: str) -> SignIn:
    """Signs the one user in, and returns an access token, which outlives the run."""

    async def answered(path: str, body: Mapping[str, object]) -> str:
        async with running_service(cheap_settings(database_url)) as service, service.browser() as browser:
            answer = await browser.post(f"/api/auth/{path}", json=body)
            return answer.cookies["access_token"]

    asyncio.run(answered("register", registration()))
    return lambda: asyncio.run(answered("login", credentials()))


@pytest.fixture
def access_token(sign_in: SignIn) -> str:
    """The token an operation is tried with; what it does to the session is nothing to the next one."""
    return sign_in()


@pytest.fixture(scope="module")
def feed_token(database_url: str) -> str:
    """What a service asks with."""

    async def made() -> str | None:
        async with running_service(cheap_settings(database_url)) as service:
            return await FeedTokens(service.auth.parts.tools.database, service.clock).create("api", source=OPERATOR)

    return asyncio.run(made()) or ""


class Application:
    """What the schema calls: the application of the test that is running. Schemathesis starts and ends it."""

    current: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.current(scope, receive, send)


application = Application()


@pytest.fixture
def app(database_url: str) -> None:
    application.current = build_app(cheap_settings(database_url))


# The document depends on no database: this one is never opened.
document = build_app(cheap_settings("sqlite:///never-opened.db")).openapi()
# No schema can say that NUL is refused anywhere in a body, in members nobody asked for too; test_bad_input.py does.
generation = GenerationConfig(max_examples=EXAMPLES, deterministic=True, no_shrink=True, allow_x00=False)
project = ProjectConfig(base_url=ADDRESS, generation=generation)
schema = schemathesis.openapi.from_dict(
    document, config=SchemathesisConfig(seed=1, projects=ProjectsConfig(default=project))
)
schema.app = application


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # one application for all examples is what is meant
)
def test_the_document_keeps_its_word(
    case: schemathesis.Case[Any], app: None, access_token: str, feed_token: str, sign_in: SignIn
) -> None:
    """No 500, no status, media type, header or body that is not documented, and nothing invalid accepted."""
    operation = case.operation.definition.raw
    # This one may end the session it is called with.
    token = sign_in() if operation["operationId"] == "revoke_sessions" else access_token
    # Only where it is asked for: with this token, logout would sign out whoever the other operations are tried as.
    if operation.get("security") == [{"feedToken": []}]:
        token = feed_token
    headers = {"Authorization": f"Bearer {token}"} if "security" in operation else {}
    excluded = EXCLUDED.get(operation["operationId"], [])
    answer = case.call_and_validate(headers=headers, excluded_checks=excluded)
    # A generator that leaves out the only credential there is, is rightly not let in.
    shown = "Authorization" in answer.request.headers
    assert answer.status_code != 401 or not shown, "nothing is shown by a call that is not let in"
