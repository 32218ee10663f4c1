"""Problems: every refusal has one shape, and the OpenAPI document tells of each, route by route.

Each code that a route documents is provoked there; what comes back is compared with what is documented. The token
endpoint has the other shape, that of RFC 6749, with the same codes.
"""

import base64
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import anyio
import httpx2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from latchstring import Code, Settings, UnavailableError
from latchstring.features.revocation_feed.actions import FeedTokens
from latchstring.foundation.events import OPERATOR
from latchstring.foundation.web import body as body_module
from latchstring.foundation.web.problem import PROBLEMS
from latchstring.testing import ManualClock
from tests.support.folders import ROOT
from tests.support.service import PASSWORD, Service, cheap_settings, credentials, registration, running_service

ERRORS_MD = ROOT / "docs" / "errors.md"
WRONG = "another one"
BODIES: dict[str, dict[str, object]] = {
    "register": registration("bob@example.com"),
    "login": {**credentials()},
    "change_me": {"first_name": "Augusta"},
    "confirm": {"password": PASSWORD},
    "change_password": {"current_password": PASSWORD, "new_password": PASSWORD},
}
WRONG_PASSWORDS: dict[str, dict[str, object]] = {
    "login": {**credentials(password=WRONG)},
    "confirm": {"password": WRONG},
    "change_password": BODIES["change_password"] | {"current_password": WRONG},
}
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
# RFC 6749, section 5.2, and for what passes by itself the word of 4.1.2.1. The contract: an OAuth client knows these.
TOKEN_ERRORS: dict[Code, tuple[int, str]] = {
    Code.BODY_TIMEOUT: (408, "invalid_request"),
    Code.BODY_TOO_LARGE: (413, "invalid_request"),
    Code.DATABASE_UNAVAILABLE: (503, "temporarily_unavailable"),
    Code.HASH_QUEUE_FULL: (503, "temporarily_unavailable"),
    Code.INVALID_CLIENT: (401, "invalid_client"),
    Code.INVALID_CREDENTIALS: (400, "invalid_grant"),
    Code.INVALID_SCOPE: (400, "invalid_scope"),
    Code.INVALID_TOKEN: (400, "invalid_grant"),
    Code.KEYS_UNAVAILABLE: (503, "temporarily_unavailable"),
    Code.ORIGIN_NOT_ALLOWED: (403, "invalid_request"),
    Code.REFRESH_TOKEN_REUSED: (400, "invalid_grant"),
    Code.SESSION_ENDED: (400, "invalid_grant"),
    Code.TOKEN_EXPIRED: (400, "invalid_grant"),
    Code.TOO_MANY_REQUESTS: (429, "temporarily_unavailable"),
    Code.UNSUPPORTED_GRANT_TYPE: (400, "unsupported_grant_type"),
    Code.UNSUPPORTED_MEDIA_TYPE: (415, "invalid_request"),
    Code.USER_GONE: (400, "invalid_grant"),
    Code.VALIDATION_FAILED: (400, "invalid_request"),
}
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-site",
}


@dataclass(frozen=True)
class Operation:
    """One documented operation."""

    id: str
    method: str
    path: str
    responses: dict[str, Any]

    @property
    def is_for_oauth(self) -> bool:
        """Whether its body is a form, and its refusals have the shape of RFC 6749."""
        return self.id == "token"

    @property
    def codes(self) -> set[Code]:
        """Every code it documents."""
        return {
            Code(code)
            for response in self.responses.values()
            for content in response.get("content", {}).values()
            for code in content.get("examples", {})
        }


def operations_of(service: Service) -> list[Operation]:
    return [
        Operation(operation["operationId"], method.upper(), path, operation["responses"])
        for path, methods in service.app.openapi()["paths"].items()
        for method, operation in methods.items()
    ]


class Visit:
    """A signed-in visitor at one operation; each test of it begins with a new one."""

    def __init__(
        self, service: Service, operation: Operation, cookies: dict[str, str], strict: Service | None = None
    ) -> None:
        self.service = service
        self.strict = strict
        self.operation = operation
        self.cookies = cookies
        self.access, self.refresh = cookies["access_token"], cookies["refresh_token"]
        self.form = {"grant_type": "refresh_token", "refresh_token": self.refresh}

    async def ask(self, headers: dict[str, str] | None = None, **changes: Any) -> httpx2.Response:  # noqa: ANN401
        """Sends what the operation takes, with the visitor's cookies, with changes."""
        body, sent = None, {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        if self.operation.id == "get_revocations":
            sent["Authorization"] = f"Bearer {await self._feed_token()}"
        if self.operation.is_for_oauth:
            body, sent["Content-Type"] = urlencode(self.form).encode(), FORM
        elif self.operation.id in BODIES:
            body, sent["Content-Type"] = json.dumps(BODIES[self.operation.id]).encode(), JSON
        async with self.service.browser() as browser:
            return await browser.request(
                self.operation.method,
                # Nobody's session: what the others refuse before they look is refused here before that, too.
                self.operation.path.format(session_id=uuid4()),
                **{"content": body, "headers": sent | (headers or {}), **changes},
            )

    async def _feed_token(self) -> str | None:
        with contextlib.suppress(UnavailableError):
            tokens = FeedTokens(self.service.auth.parts.tools.database, self.service.clock)
            return await tokens.create(uuid4().hex, source=OPERATOR)
        return "lsf_unknown"

    async def ask_by_form(self, **fields: str) -> httpx2.Response:
        """Asks with other fields where there is a form."""
        self.form = self.form | fields
        return await self.ask()

    async def ask_by_password(self, password: str = PASSWORD) -> httpx2.Response:
        """Asks by the user's password where there are several ways to ask."""
        return await self.ask_by_form(grant_type="password", username="ada@example.com", password=password)

    async def no_cookies(self) -> httpx2.Response:
        self.cookies = {}
        return await self.ask()

    async def others_header(self) -> httpx2.Response:
        await self.service.browser().post("/api/auth/register", json=registration("eve@example.com"))
        answer = await self.service.browser().post("/api/auth/login", json=credentials("eve@example.com"))
        return await self.ask({"Authorization": f"Bearer {answer.cookies['access_token']}"})

    async def later(self) -> httpx2.Response:
        self.service.clock.advance(minutes=61)
        return await self.ask()

    async def signed_out(self) -> httpx2.Response:
        await self.service.browser().post("/api/auth/logout", headers={"Authorization": f"Bearer {self.access}"})
        return await self.ask()

    async def promoted(self) -> httpx2.Response:
        user = await self.service.auth.users.find_by_email("ada@example.com")
        assert user is not None
        change = self.service.auth.users.withdraw_role if user.roles else self.service.auth.users.grant_role
        await change(user.id, "editor", source=OPERATOR)
        return await self.ask()

    async def deleted(self) -> httpx2.Response:
        user = await self.service.auth.users.find_by_email("ada@example.com")
        assert user is not None
        await self.service.auth.users.delete(user.id, source=OPERATOR)
        return await self.ask()

    async def stolen(self) -> httpx2.Response:
        owner = self.service.browser(headers={"Cookie": f"refresh_token={self.refresh}"})
        await owner.post("/api/auth/refresh")
        self.service.clock.advance(minutes=1)
        return await self.ask()

    async def asleep(self) -> httpx2.Response:
        self.service.clock.suspend(seconds=6)
        return await self.ask()

    async def slowly(self) -> httpx2.Response:
        async def body() -> AsyncIterator[bytes]:
            yield b"{"
            await anyio.sleep(60)

        return await self.ask(content=body())

    async def forged(self) -> httpx2.Response:
        self.cookies = {"access_token": "a.b.c", "refresh_token": "a.b.c"}
        return await self.ask_by_form(refresh_token="a.b.c")

    async def long_ago(self) -> httpx2.Response:
        """Refreshed since, so that the token is new; the proof behind it is that of the sign-in, 16 minutes old."""
        self.service.clock.advance(minutes=14)
        owner = self.service.browser(headers={"Cookie": f"refresh_token={self.refresh}"})
        self.cookies = dict((await owner.post("/api/auth/refresh")).cookies)
        self.service.clock.advance(minutes=2)
        return await self.ask()

    async def too_often(self) -> httpx2.Response:
        """At a worker that lets everything be tried once: a wrong password, a registration, a refresh."""
        assert self.strict is not None
        await self.strict.browser().post("/api/auth/login", json=credentials(password=WRONG))
        self.service = self.strict
        await self.ask()
        answer = await self.ask()
        self.service.clock.advance(minutes=61)  # for the next operation everything may be tried once again
        return answer

    async def wrong_password(self) -> httpx2.Response:
        if self.operation.is_for_oauth:
            return await self.ask_by_password(WRONG)
        wrong = WRONG_PASSWORDS.get(self.operation.id)
        return await (self.ask() if wrong is None else self.ask(content=json.dumps(wrong).encode()))

    async def two_passwords(self) -> httpx2.Response:
        return await self.ask(content=json.dumps(registration(passwordConfirm=WRONG)).encode())

    async def taken_address(self) -> httpx2.Response:
        return await self.ask(content=json.dumps(registration()).encode())


PROVOCATIONS: dict[Code, Callable[[Visit], Awaitable[httpx2.Response]]] = {
    Code.BODY_TIMEOUT: Visit.slowly,
    Code.BODY_TOO_LARGE: lambda visit: visit.ask(content=b"x" * 65_537),
    Code.CLAIMS_CHANGED: Visit.promoted,
    Code.CREDENTIALS_CONFLICT: Visit.others_header,
    Code.DUPLICATE_COOKIE: lambda visit: visit.ask(
        {"Cookie": "access_token=a; access_token=b; refresh_token=a; refresh_token=b"}
    ),
    Code.EMAIL_TAKEN: Visit.taken_address,
    Code.FEED_TOKEN_REQUIRED: lambda visit: visit.ask({"Authorization": "Bearer lsf_unknown"}),
    Code.INSUFFICIENT_USER_AUTHENTICATION: Visit.long_ago,
    Code.INVALID_AUTHORIZATION_HEADER: lambda visit: visit.ask({"Authorization": "Bearer"}),
    Code.INVALID_CLIENT: lambda visit: visit.ask_by_form(client_id="somebody"),
    Code.INVALID_CREDENTIALS: Visit.wrong_password,
    Code.INVALID_SCOPE: lambda visit: visit.ask_by_form(scope="everything"),
    Code.INVALID_TOKEN: Visit.forged,
    Code.MALFORMED_JSON: lambda visit: visit.ask(content=b"{"),
    Code.MISSING_REFRESH_TOKEN: Visit.no_cookies,
    Code.MISSING_TOKEN: Visit.no_cookies,
    Code.ORIGIN_NOT_ALLOWED: lambda visit: visit.ask({"Origin": "https://evil.example"}),
    Code.PASSWORDS_DO_NOT_MATCH: Visit.two_passwords,
    Code.REFRESH_TOKEN_REUSED: Visit.stolen,
    Code.REVOCATIONS_UNKNOWN: Visit.asleep,
    Code.SESSION_ENDED: Visit.signed_out,
    Code.SESSION_NOT_FOUND: Visit.ask,
    Code.TOKEN_EXPIRED: Visit.later,
    Code.TOO_MANY_REQUESTS: Visit.too_often,
    Code.UNSUPPORTED_GRANT_TYPE: lambda visit: visit.ask_by_form(grant_type="implicit"),
    Code.UNSUPPORTED_MEDIA_TYPE: lambda visit: visit.ask({"Content-Type": "text/plain"}),
    Code.USER_GONE: Visit.deleted,
    Code.USER_NOT_FOUND: Visit.deleted,
    Code.VALIDATION_FAILED: lambda visit: visit.ask(
        content=b"[]", params={"all": "perhaps", "after": "yesterday", "require": "luck"}
    ),
}
# After these, and after a POST, PATCH or DELETE that succeeds, the visitor's session is another one, or none.
CHANGING = {
    *(Visit.asleep, Visit.deleted, Visit.later, Visit.long_ago, Visit.promoted, Visit.signed_out, Visit.stolen),
    Visit.too_often,
}
# What is away is provoked further below, with a worker that never got there.
AWAY = {Code.DATABASE_UNAVAILABLE, Code.HASH_QUEUE_FULL, Code.KEYS_UNAVAILABLE}
# No route documents what routing itself answers, what a bug answers, what only a host's own routes ask for, and what
# only a page refuses.
NOWHERE = {
    Code.METHOD_NOT_ALLOWED,
    Code.NEXT_NOT_ALLOWED,
    Code.NOT_FOUND,
    Code.INTERNAL_ERROR,
    Code.ROLE_REQUIRED,
}


def assert_refusal(answer: httpx2.Response, operation: Operation, code: Code) -> None:
    """Looks at everything that every refusal of the operation has."""
    if operation.is_for_oauth:
        assert_token_problem(answer, code)
    else:
        assert_problem(answer, code)


def assert_problem(answer: httpx2.Response, code: Code) -> None:
    """Looks at everything that every refusal has."""
    status, detail = PROBLEMS[code]
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem.pop("title")
    assert problem.pop("request_id") == answer.headers["x-request-id"]
    errors = problem.pop("errors", [])
    assert all(error.keys() == {"pointer", "detail"} and error["pointer"][0] == "#" for error in errors)
    assert bool(errors) == (status == 422)
    assert problem == {"type": "about:blank", "status": status, "detail": detail, "code": code.value}
    assert answer.status_code == status
    challenge = answer.headers.get("www-authenticate")
    if code is Code.INSUFFICIENT_USER_AUTHENTICATION:
        # RFC 9470: the token is good; a client that took it for a bad one would refresh for ever.
        assert challenge == f'Bearer error="{code}", error_description="{detail}", max_age="900"'
    elif status == 401:
        assert challenge in {"Bearer", 'Bearer error="invalid_token"'}
    else:
        assert challenge == ("Bearer" if code is Code.INVALID_CREDENTIALS else None)
    assert_wait(answer)
    assert_headers(answer)
    assert "set-cookie" not in answer.headers


def assert_token_problem(answer: httpx2.Response, code: Code) -> None:
    """Looks at everything that every refusal of the token endpoint has (RFC 6749, section 5.2)."""
    status, error = TOKEN_ERRORS[code]
    assert answer.headers["content-type"] == "application/json"
    problem = answer.json()
    description = problem.pop("error_description")
    # Characters that section 5.2 allows. What is wrong with a form is said in its own words.
    assert description.isascii()
    assert description.isprintable()
    assert description == PROBLEMS[code][1] or code is Code.VALIDATION_FAILED
    assert problem.pop("request_id") == answer.headers["x-request-id"]
    assert problem == {"error": error, "code": code.value}
    assert answer.status_code == status
    # With 401 HTTP asks for a challenge; an `error` in it would speak of an access token, and none was asked for.
    assert answer.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
    assert answer.headers.get_list("pragma") == ["no-cache"]
    assert_wait(answer)
    assert_headers(answer)
    assert "set-cookie" not in answer.headers


def assert_wait(answer: httpx2.Response) -> None:
    """Sees that what passes by itself says when, in whole seconds, and nothing else does."""
    wait = answer.headers.get("retry-after")
    if answer.status_code in {429, 503}:
        assert 1 <= int(wait or 0) <= 3600
    else:
        assert wait is None


def assert_headers(answer: httpx2.Response) -> None:
    """Looks at the headers that every answer has, exactly once each."""
    for name, value in SECURITY_HEADERS.items():
        assert answer.headers.get_list(name) == [value]
    assert len(answer.headers.get_list("x-request-id")) == 1
    assert answer.headers.get_list("cache-control") == ["no-store"]
    assert "server" not in answer.headers


def assert_documented(answer: httpx2.Response, operation: Operation) -> None:
    """Looks up status, media type and code in the operation's documentation."""
    assert str(answer.status_code) in operation.responses, (operation.id, answer.text)
    documented = operation.responses[str(answer.status_code)].get("content", {})
    if not documented:
        assert (answer.content, "content-type" in answer.headers) == (b"", False), operation.id
        return
    media_type = answer.headers["content-type"].split(";")[0]
    assert media_type in documented, (operation.id, answer.status_code)
    if answer.is_error and "code" in answer.json():
        assert answer.json()["code"] in documented[media_type]["examples"], operation.id


async def signed_in(service: Service) -> dict[str, str]:
    """Returns the cookies of a new session of the visitor, who may have been deleted meanwhile."""
    answer = await service.browser().post("/api/auth/login", json=credentials())
    if not answer.is_success:
        answer = await service.browser().post("/api/auth/register", json=registration())
    return dict(answer.cookies)


ONCE = {"limits": True, "limit_account": "1/15m", "limit_register": "1/1h", "limit_refresh": "1/1m"}


@pytest.mark.parametrize("backend", ["sqlite"])  # the one refusal that is PostgreSQL's own has a test of its own
async def test_every_documented_refusal_is_what_the_document_says(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Provoked at every operation: it answers the code if it documents it, and something else it documents if not."""
    monkeypatch.setattr(body_module, "TIMEOUT_SECONDS", 0.05)
    await service.registered()
    operations = operations_of(service)
    settings = Settings.model_validate(service.settings.model_dump() | ONCE)
    async with running_service(settings, service.clock) as strict:
        cookies = await signed_in(service)
        for code, provoke in PROVOCATIONS.items():
            for operation in operations:
                answer = await provoke(Visit(service, operation, cookies, strict))
                if code is Code.REVOCATIONS_UNKNOWN:
                    if answer.is_success and code in operation.codes:
                        # On a machine that stalls the worker may have woken up, and looked, before the request came.
                        answer = await provoke(Visit(service, operation, await signed_in(service)))
                    await service.auth.parts.core.feed.poll()
                if (answer.is_success and operation.method != "GET") or provoke in CHANGING:
                    cookies = await signed_in(service)
                assert_documented(answer, operation)
                if code in operation.codes:
                    assert_refusal(answer, operation, code)
                elif answer.is_client_error:
                    assert_refusal(answer, operation, Code(answer.json()["code"]))


async def test_an_address_that_is_taken(service: Service) -> None:
    """The unique index of either database is one documented refusal."""
    browser = await service.registered()
    (register,) = (operation for operation in operations_of(service) if operation.id == "register")
    assert_refusal(await Visit(service, register, dict(browser.cookies)).taken_address(), register, Code.EMAIL_TAKEN)


async def test_every_code_of_the_closed_list_is_accounted_for(shared: Service) -> None:
    """Each is documented by some route and provoked here, or is on the short list of those that belong to none."""
    documented = {code for operation in operations_of(shared) for code in operation.codes}
    assert documented == PROVOCATIONS.keys() | AWAY
    assert documented | NOWHERE == set(Code)
    schema = shared.app.openapi()["components"]["schemas"]["Problem"]
    assert {"title", "status", "detail", "code", "request_id"} <= set(schema["required"])


def test_errors_md_has_a_row_for_every_code() -> None:
    """Each once, with its status; and of those of the token endpoint the word that goes with it."""
    refusals, _, at_token = ERRORS_MD.read_text().partition("## At the token endpoint")
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| \S", refusals, re.MULTILINE)
    assert sorted(rows) == sorted((code.value, str(status)) for code, (status, _) in PROBLEMS.items())
    words: dict[Code, str] = {}
    for error, statuses, codes in re.findall(r"^\| `(\w+)` \| ([\d, ]+) \| (.*) \|$", at_token, re.MULTILINE):
        for name in [error] if codes == "the same" else re.findall(r"`(\w+)`", codes):
            words[Code(name)] = error
            assert str(TOKEN_ERRORS[Code(name)][0]) in statuses.split(", ")
    assert words == {code: error for code, (_, error) in TOKEN_ERRORS.items()}


async def test_the_document_knows_no_refusal_but_ours(shared: Service) -> None:
    """Each has one of the two shapes, and by its codes an example that is one; the framework's own 422 is nowhere."""
    document = shared.app.openapi()
    for operation in operations_of(shared):
        media_type, model = (
            (JSON, "TokenProblem") if operation.is_for_oauth else ("application/problem+json", "Problem")
        )
        for status, response in operation.responses.items():
            if int(status) < 400 or (operation.id, status) == ("get_readiness", "503"):
                continue
            assert response["content"].keys() == {media_type}, (operation.id, status)
            content = response["content"][media_type]
            assert content["schema"] == {"$ref": f"#/components/schemas/{model}"}, (operation.id, status)
            assert content["examples"], (operation.id, status)
            for code, example in content["examples"].items():
                assert example["value"]["code"] == code
                expected = TOKEN_ERRORS[Code(code)] if operation.is_for_oauth else PROBLEMS[Code(code)]
                assert int(status) == expected[0]
                assert set(document["components"]["schemas"][model]["required"]) <= example["value"].keys()
    assert {operation.id for operation in operations_of(shared) if operation.is_for_oauth} == {"token"}
    (token,) = (operation for operation in operations_of(shared) if operation.is_for_oauth)
    assert token.codes == TOKEN_ERRORS.keys()
    assert not document["components"]["schemas"].keys() & {"HTTPValidationError", "ValidationError"}


@pytest.fixture(scope="module")
def signing_key() -> str:
    """A key from the environment, so that tokens can be verified where the database has never been seen."""
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return base64.b64encode(pem).decode()


async def test_what_is_away_is_503_and_documented(settings: Settings, signing_key: str, tmp_path: Path) -> None:
    """A worker that never reached its database lets nobody in, and says so in the way its document does."""
    keys = {"jwt_private_key": signing_key, "jwt_algorithm": "ES256"}
    with_keys = Settings.model_validate(settings.model_dump() | keys)
    async with running_service(with_keys) as living:
        cookies = dict((await living.registered()).cookies)
    nowhere = f"sqlite:///{tmp_path}/no-such-folder/latchstring.db"
    no_database, no_keys, no_room = (
        cheap_settings(nowhere, **keys),
        cheap_settings(nowhere),
        with_keys.model_copy(update={"password_hash_queue": 0, "password_hash_threads": 1}),
    )
    seen: set[Code] = set()
    for away in (no_database, no_keys):
        async with running_service(away) as service:
            for operation in operations_of(service):
                answer = await Visit(service, operation, cookies).ask()
                assert_documented(answer, operation)
                if operation.path not in {"/healthz", "/readyz", "/.well-known/jwks.json"} or "code" in answer.json():
                    code = Code(answer.json()["code"])
                    assert_refusal(answer, operation, code)
                    assert answer.status_code == 503
                    seen.add(code)
    async with running_service(no_room) as service:
        service.auth.parts.tools.passwords._pending = 1
        for operation in operations_of(service):
            if Code.HASH_QUEUE_FULL in operation.codes:
                answer = await Visit(service, operation, cookies).ask_by_password()
                assert_refusal(answer, operation, Code.HASH_QUEUE_FULL)
                seen.add(Code.HASH_QUEUE_FULL)
    assert seen == AWAY | {Code.REVOCATIONS_UNKNOWN}


async def test_another_method_is_405_and_told_which_there_are(shared: Service) -> None:
    """`Allow` lists the methods of the address, all of them (RFC 9110, section 15.5.6)."""
    methods: dict[str, set[str]] = {}
    for operation in operations_of(shared):
        methods.setdefault(operation.path, set()).add(operation.method)
    for path, known in methods.items():
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "BREW"} - known:
            answer = await shared.browser().request(method, path.format(session_id=uuid4()))
            assert_problem(answer, Code.METHOD_NOT_ALLOWED)
            told = set(answer.headers["allow"].replace(" ", "").split(","))
            assert told - {"HEAD", "OPTIONS"} == known, (method, path)


async def test_no_such_address(shared: Service) -> None:
    """404, in the same shape as every refusal."""
    for path in (
        "/nothing",
        "/api/auth",
        "/api/auth/",
        "/docs",
        "/redoc",
        "/api/auth/login/",
        "/api/auth/sessions/",
    ):
        assert_problem(await shared.browser().get(path), Code.NOT_FOUND)


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_every_success_has_the_headers_too(service: Service) -> None:
    """Nothing of ours is stored by a cache, but the public keys; no answer does without the security headers."""
    browser = await service.registered()
    confirm, change = ({"json": BODIES[name]} for name in ("confirm", "change_password"))
    form = {"data": {"grant_type": "password", "username": "ada@example.com", "password": PASSWORD}}
    asked: tuple[tuple[str, str, dict[str, Any]], ...] = (
        *(("GET", "/api/auth/me", {}), ("GET", "/api/dashboard", {}), ("POST", "/api/auth/refresh", {})),
        *(("POST", "/api/auth/confirm", confirm), ("POST", "/api/auth/password/change", change)),
        *(("POST", "/api/auth/token", form), ("GET", "/api/auth/sessions", {}), ("DELETE", "/api/auth/sessions", {})),
        *(("GET", "/healthz", {}), ("GET", "/readyz", {}), ("GET", "/openapi.json", {})),
        ("POST", "/api/auth/logout", {}),
    )
    for method, path, body in asked:
        answer = await browser.request(method, path, **body)
        assert answer.status_code in {200, 204}, path
        assert_headers(answer)
    keys = await browser.get("/.well-known/jwks.json")
    assert keys.headers["cache-control"].startswith("public, max-age=")
    assert keys.headers["x-content-type-options"] == "nosniff"


async def test_the_request_id_is_ours_and_never_the_visitors(shared: Service) -> None:
    """A fresh one for each answer; what a visitor sends under that name is not taken over into answers or logs."""
    browser = shared.browser(headers={"X-Request-ID": "chosen-by-the-visitor"})
    seen = {(await browser.get("/api/dashboard")).headers["x-request-id"] for _ in range(5)}
    assert len(seen) == 5
    assert "chosen-by-the-visitor" not in seen


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_strict_transport_security_comes_with_https(settings: Settings, clock: ManualClock) -> None:
    """With an https public URL every answer says to come by https only; without one, none does."""
    for public_url, expected in (("https://auth.example.com", True), (None, False)):
        async with running_service(settings.model_copy(update={"public_url": public_url}), clock) as service:
            for path in ("/healthz", "/nothing", "/api/dashboard"):
                answer = await service.browser().get(path)
                assert ("strict-transport-security" in answer.headers) == expected
