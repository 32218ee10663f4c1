"""Bad input: whatever comes to whatever address, the answer is a clear refusal that repeats nothing of it.

The addresses are those of the OpenAPI document: a new route is covered the day it is written.
"""

import contextlib
import json
import logging
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

import anyio
import httpx2
import pytest
import uvicorn
from starlette.types import Receive, Scope
from starlette.types import Send as ASGISend

from latchstring.apps import connections
from latchstring.apps.connections import BoundedProtocol
from latchstring.foundation.web import body as body_module
from tests.support.hang import HANG_SECONDS
from tests.support.postgres import Postgres
from tests.support.process import CHEAP_HASH, ServerProcess, serve
from tests.support.service import PASSWORD, Service, cheap_settings, credentials, registration, running_service

TOKEN = "/api/auth/token"
MARKER = "xq7markerq7x"
TEN_MEGABYTES = 10 * 1024 * 1024
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True)
class Operation:
    """One method of one address, and the schema of its body where it takes one."""

    method: str
    path: str
    body_schema: dict[str, Any] | None
    guarded: bool
    takes_form: bool = False

    @property
    def takes_json(self) -> bool:
        """Whether its body is JSON."""
        return self.body_schema is not None and not self.takes_form

    @property
    def address(self) -> str:
        """The path, with nobody's id wherever it takes one."""
        return self.path.format(session_id=uuid4())

    def valid_body(self) -> dict[str, str]:
        """Returns a body that every rule of the schema lets pass."""
        properties = self.body_schema["properties"] if self.body_schema else {}
        return {
            name: "bob@example.com" if rule.get("format") == "email" else "correct horse battery"
            for name, rule in properties.items()
        }

    def nullable(self, name: str) -> bool:
        """Tells whether the schema takes null for this member."""
        assert self.body_schema is not None
        return {"type": "null"} in self.body_schema["properties"][name].get("anyOf", ())


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared_database_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One database for the whole file: what is refused leaves no trace that a later test could see."""
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("bad-input") / "latchstring.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    url = postgres.create_database(template=request.getfixturevalue("postgres_template"))
    yield url
    postgres.drop_database(url)


@pytest.fixture(scope="module")
def service(shared: Service) -> Service:
    """What is refused here is refused before any statement."""
    return shared


@pytest.fixture(scope="module")
async def storing(shared_database_url: str) -> AsyncIterator[Service]:
    """For what reaches a database, on either one."""
    async with running_service(cheap_settings(shared_database_url)) as running:
        yield running


@pytest.fixture(scope="module")
async def access_token(service: Service) -> str:
    browser = await service.registered()
    return browser.cookies["access_token"]


@pytest.fixture
def operations(service: Service) -> list[Operation]:
    document = service.app.openapi()

    def body(operation: dict[str, Any]) -> tuple[dict[str, Any] | None, bool]:
        if "requestBody" not in operation:
            return None, False
        ((media_type, content),) = operation["requestBody"]["content"].items()
        assert media_type in {JSON["Content-Type"], FORM["Content-Type"]}
        schema: dict[str, Any] = content["schema"]
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        return schema, media_type == FORM["Content-Type"]

    found = [
        Operation(
            method.upper(), path, schema, guarded="accessToken" in str(operation.get("security")), takes_form=takes_form
        )
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for schema, takes_form in [body(operation)]
        if operation["operationId"] != "get_revocations"  # for services, not for visitors: test_revocations.py
    ]
    assert sum(operation.takes_json for operation in found) >= 5
    assert [operation.path for operation in found if operation.takes_form] == [TOKEN]
    assert len(found) >= 18
    return found


@pytest.fixture
async def send(service: Service, access_token: str) -> AsyncIterator["Send"]:
    async with service.browser() as browser:
        yield Send(browser, access_token)


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever is refused here: no line of the log, as the server writes it, tells what was sent, or of a failure."""
    caplog.set_level(logging.INFO)
    yield
    assert MARKER not in caplog.text
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


class Send:
    """Sends one request to an operation, with a bearer token where it is guarded."""

    def __init__(self, browser: httpx2.AsyncClient, token: str) -> None:
        self._browser = browser
        self._token = token

    async def __call__(
        self,
        operation: Operation,
        content: bytes | AsyncIterator[bytes] | None = None,
        headers: "list[tuple[bytes, bytes]] | dict[str, str] | None" = None,
        *,
        authorized: bool = True,
    ) -> httpx2.Response:
        sent = httpx2.Headers(headers)
        if authorized and operation.guarded:
            sent["Authorization"] = f"Bearer {self._token}"
        self._browser.cookies.clear()
        return await self._browser.request(operation.method, operation.address, content=content, headers=sent)


def refusal(answer: httpx2.Response) -> tuple[int, str]:
    """Returns status and code of a refusal, after looking that it is a clear one which repeats nothing."""
    assert 400 <= answer.status_code < 500, answer.text
    assert MARKER not in answer.text
    assert MARKER not in str(answer.headers)
    problem = answer.json()
    if answer.request.url.path == TOKEN:
        assert answer.headers["content-type"] == "application/json"
        assert problem.keys() == {"error", "error_description", "code", "request_id"}
    else:
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem["status"] == answer.status_code
    return answer.status_code, problem["code"]


async def ten_megabytes() -> AsyncIterator[bytes]:
    """Comes in pieces, with no length announced; whoever reads it to its end fails the test."""
    for piece in range(TEN_MEGABYTES // 8192):
        assert piece < 64, "the body was read on, far beyond the limit"
        yield MARKER.encode().ljust(8192, b"x")


# --- the body as a whole ----------------------------------------------------------------------------------------------

MALFORMED, UNPROCESSABLE = (400, "malformed_json"), (422, "validation_failed")
UNSUPPORTED, TOO_LARGE = (415, "unsupported_media_type"), (413, "body_too_large")

BODIES: dict[str, tuple[bytes, tuple[int, str]]] = {
    "none": (b"", MALFORMED),
    "white space": (b" \n", MALFORMED),
    "cut off": (f'{{"email": "{MARKER}'.encode(), MALFORMED),
    "trailing comma": (f'{{"email": "{MARKER}",}}'.encode(), MALFORMED),
    "two values": (f'{{}} "{MARKER}"'.encode(), MALFORMED),
    "single quotes": (f"{{'email': '{MARKER}'}}".encode(), MALFORMED),
    "a form": (f"email={MARKER}&password={MARKER}".encode(), MALFORMED),
    "byte order mark": (b"\xef\xbb\xbf{}", MALFORMED),
    "not UTF-8": (b'{"email": "\xff' + MARKER.encode() + b'"}', MALFORMED),
    "UTF-16": (json.dumps({"email": MARKER}).encode("utf-16"), MALFORMED),
    "UTF-32": (json.dumps({"email": MARKER}).encode("utf-32-be"), MALFORMED),
    "a surrogate in UTF-8": (b'{"email": "\xed\xa0\x80"}', MALFORMED),
    "an overlong NUL": (b'{"email": "\xc0\x80"}', MALFORMED),
    "a bare NUL": (f'{{"email": "{MARKER}\0"}}'.encode(), MALFORMED),
    "a number of 5,000 digits": (b'{"email": ' + b"7" * 5_000 + b"}", MALFORMED),
    "30,000 lists deep": (b"[" * 30_000 + b"]" * 30_000, MALFORMED),
    "10,000 objects deep": (b'{"a":' * 10_000 + b"0" + b"}" * 10_000, MALFORMED),
    "100,000 lists deep": (b"[" * 100_000 + b"]" * 100_000, TOO_LARGE),
    "10 MB announced": (MARKER.encode().ljust(TEN_MEGABYTES, b"x"), TOO_LARGE),
    "NaN": (f'{{"{MARKER}": NaN}}'.encode(), UNPROCESSABLE),
    "Infinity": (f'{{"{MARKER}": Infinity}}'.encode(), UNPROCESSABLE),
    "minus Infinity": (f'["{MARKER}", -Infinity]'.encode(), UNPROCESSABLE),
    "a name twice": (f'{{"email": "a", "email": "{MARKER}"}}'.encode(), UNPROCESSABLE),
    "a name twice, in other spelling": (f'{{"email": "{MARKER}", "\\u0065mail": "a"}}'.encode(), UNPROCESSABLE),
    "a name twice, deep inside": (f'{{"a": [{{"{MARKER}": 1, "{MARKER}": 2}}]}}'.encode(), UNPROCESSABLE),
    "NUL in a name": (f'{{"{MARKER}\\u0000": 1}}'.encode(), UNPROCESSABLE),
    "a lone surrogate in a name": (f'{{"{MARKER}\\ud800": 1}}'.encode(), UNPROCESSABLE),
    "a string": (f'"{MARKER}"'.encode(), UNPROCESSABLE),
    "a string with NUL": (f'"{MARKER}\\u0000"'.encode(), UNPROCESSABLE),
    "a lone surrogate": (b'"\\udfff"', UNPROCESSABLE),
    "a list": (f'[["{MARKER}", "\\ud800"]]'.encode(), UNPROCESSABLE),
    "a number": (b"7", UNPROCESSABLE),
    "an endless number": (b"1e999", UNPROCESSABLE),
    "null": (b"null", UNPROCESSABLE),
    "true": (b"true", UNPROCESSABLE),
}


@pytest.mark.parametrize(("content", "expected"), BODIES.values(), ids=BODIES.keys())
async def test_a_body_that_is_no_honest_json_is_refused(
    send: Send, operations: list[Operation], content: bytes, expected: tuple[int, str]
) -> None:
    """Where a body is due it is refused; where none is, it changes nothing but may be too large to be let in."""
    for operation in operations:
        answer = await send(operation, content, JSON)
        if operation.takes_json:
            assert refusal(answer) == expected, operation
        elif operation.takes_form:
            assert refusal(answer) == (TOO_LARGE if expected == TOO_LARGE else UNSUPPORTED), operation
        elif answer.status_code == 413:
            assert refusal(answer) == expected == TOO_LARGE, operation
        else:
            assert MARKER not in answer.text
            assert answer.status_code == (await send(operation)).status_code < 500, operation


async def test_ten_megabytes_in_pieces_are_not_read(send: Send, operations: list[Operation]) -> None:
    """A body that announces no length is left where the limit is reached."""
    for operation in operations:
        answer = await send(operation, ten_megabytes(), JSON)
        if operation.body_schema is not None:
            assert refusal(answer) == TOO_LARGE, operation
        else:
            assert answer.status_code == (await send(operation)).status_code < 500, operation


async def test_an_object_with_nothing_in_it_names_what_is_missing(send: Send, operations: list[Operation]) -> None:
    """`{}` is refused with a pointer to each member that is due, and accepted where none is."""
    for operation in operations:
        if operation.body_schema is None or operation.takes_form:
            continue
        answer = await send(operation, b"{}", JSON)
        required = operation.body_schema.get("required", [])
        if required:
            assert refusal(answer) == UNPROCESSABLE, operation
            assert {error["pointer"] for error in answer.json()["errors"]} == {f"#/{name}" for name in required}
        else:
            assert answer.status_code == 200, operation


# --- the content type: a form of another site can send JSON as text/plain without asking first (CVE-2021-32677) -------

CONTENT_TYPES: dict[str, list[bytes]] = {
    "missing": [],
    "empty": [b""],
    "text": [b"text/plain"],
    "text that says charset": [b"text/plain; charset=application/json"],
    "form": [b"application/x-www-form-urlencoded"],
    "multipart": [b"multipart/form-data; boundary=application/json"],
    "octets": [b"application/octet-stream"],
    "text/json": [b"text/json"],
    "a longer name": [b"application/jsonx"],
    "a suffix": [b"application/ld+json"],
    "UTF-16": [b"application/json; charset=utf-16"],
    "Latin-1": [b'application/json; charset="latin-1"'],
    "UTF-16 by RFC 2231": [b"application/json; charset*=us-ascii''utf-16"],
    "UTF-16 in pieces": [b"application/json; charset*0=utf; charset*1=-16"],
    "broken RFC 2231": [b"application/json; charset*0*=%; charset*1*=\xff"],
    "two headers": [b"application/json", b"text/plain"],
    "one header twice": [b"application/json", b"application/json"],
    "a list": [b"application/json, text/plain"],
    "not ASCII": [b"\xff\xfe" + MARKER.encode()],
    "only separators": [b";;;===,,,"],
}


@pytest.mark.parametrize("types", CONTENT_TYPES.values(), ids=CONTENT_TYPES.keys())
async def test_a_body_of_another_content_type_is_refused(
    send: Send, operations: list[Operation], types: list[bytes]
) -> None:
    """Only application/json in UTF-8, said once, is taken for JSON, however good the bytes are."""
    for operation in operations:
        if not operation.takes_json:
            continue
        content = json.dumps(operation.valid_body()).encode()
        answer = await send(operation, content, [(b"content-type", value) for value in types])
        assert refusal(answer) == UNSUPPORTED, operation


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", 'Application/JSON;Charset="UTF-8"', "application/json;"],
)
async def test_every_spelling_of_json_is_taken(send: Send, operations: list[Operation], content_type: str) -> None:
    """Media types know no case, and UTF-8 may be said; so the refusals above are not about everything."""
    for operation in operations:
        if operation.takes_json:
            answer = await send(operation, b"[]", {"Content-Type": content_type})
            assert refusal(answer) == UNPROCESSABLE, operation


# --- each member of each body -----------------------------------------------------------------------------------------

VALUES: dict[str, object] = {
    "a number": 7,
    "a huge number": 1e308,
    "true": True,
    "null": None,
    "a list": [MARKER],
    "an object": {MARKER: MARKER},
    "300 characters": MARKER.ljust(300, "x"),
    "10,000 characters": MARKER.ljust(10_000, "x"),
    "10,000 combining marks": "e" + "\u0301" * 10_000,
    "NUL": f"{MARKER}\0 and more of it",
    "a lone surrogate": f"{MARKER}\ud800 and more",
    "lone surrogates in a list": [[[f"{MARKER}\udfff"]]],
    "NUL, deep inside": {"a": [{"b": f"{MARKER}\0"}]},
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
async def test_a_member_of_the_wrong_kind_is_refused(send: Send, operations: list[Operation], value: object) -> None:
    """Each member of each body, one at a time: 422, with a pointer to it wherever the JSON itself was honest."""
    for operation in operations:
        for name in operation.valid_body() if operation.takes_json else ():
            if value is None and operation.nullable(name):
                continue
            answer = await send(operation, json.dumps(operation.valid_body() | {name: value}).encode(), JSON)
            assert refusal(answer) == UNPROCESSABLE, (operation, name)
            assert {error["pointer"] for error in answer.json()["errors"]} <= {"#", f"#/{name}"}, (operation, name)


@pytest.mark.parametrize(
    "email",
    [
        *(MARKER, f"{MARKER}@", f"@{MARKER}.com", f"{MARKER}@@example.com", f"{MARKER}@a.com@b.com"),
        *(f"{MARKER}@example", f"{MARKER}@127.0.0.1", f"{MARKER}@[127.0.0.1]", f"{MARKER} @example.com"),
        *(f"{MARKER}@example.com\r\nBcc: a@b.com", f"Ada <{MARKER}@example.com>", f'"{MARKER}"@example.com'),
        *(f"{MARKER}\uff20example.com", f"{MARKER}@exam\u200bple.com", f"{MARKER}@-example.com", f"{MARKER}@ex..com"),
        *(f"{MARKER}@{'a.' * 120}com", f"{MARKER.ljust(250, 'x')}@example.com", f"{MARKER}\u202e@example.com"),
        *(f"{MARKER}@xn--zzzzzz99999.com", f"..{MARKER}@example.com", f"{MARKER}@example.com\u0000"),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("path", ["/api/auth/register", "/api/auth/login"])
async def test_what_is_no_address_is_refused(service: Service, path: str, email: str) -> None:
    """Sign-up and sign-in have one idea of an address; what is none is 422 at both (CVE-2026-40574, GHSA-7rqj)."""
    answer = await service.browser().post(path, json=registration(email))
    assert refusal(answer) == UNPROCESSABLE


@pytest.mark.parametrize(
    ("registered", "others"),
    [
        ("Carol@Example.COM", ["carol@example.com", "CAROL@EXAMPLE.COM", " carol@example.com\n"]),
        ("jose\u0301@example.org", ["jos\u00e9@example.org", "JOSe\u0301@EXAMPLE.ORG"]),
        (
            "dora@b\u00fccher.example",
            ["dora@xn--bcher-kva.example", "Dora@BU\u0308CHER.example", "dora@xn--BCHER-KVA.EXAMPLE"],
        ),
        ("emil@stra\u00dfe.example", ["EMIL@stra\u00dfe.example", "emil@xn--strae-oqa.example"]),
        ("fay@example.com", ["fay@\uff45xample.com", "fay@example\u3002com"]),
        ("kim@example.com", ["\u212aim@example.com"]),  # the Kelvin sign is canonically the letter K
    ],
    ids=ascii,
)
async def test_addresses_that_differ_by_case_or_unicode_form_are_one_account(
    storing: Service, registered: str, others: list[str]
) -> None:
    """Whatever the spelling, registering again is 409 and signing in opens the one account there is."""
    first = await storing.browser().post("/api/auth/register", json=registration(registered))
    assert first.status_code == 201, first.text
    for other in others:
        again = await storing.browser().post("/api/auth/register", json=registration(other))
        assert refusal(again) == (409, "email_taken"), ascii(other)
        signed_in = await storing.browser().post("/api/auth/login", json=credentials(other))
        assert signed_in.status_code == 200, ascii(other)
        assert signed_in.json() == first.json()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ivan@example.com", "\u0131van@example.com"),  # the dotless i
        ("sue@example.com", "\u017fue@example.com"),  # the long s
        ("pat@example.com", "p\u0430t@example.com"),  # the Cyrillic a
    ],
    ids=ascii,
)
async def test_letters_that_only_look_alike_are_two_accounts(storing: Service, one: str, other: str) -> None:
    """Nobody signs in as somebody else by a letter that some case rule or some font makes the same (CVE-2019-19844)."""
    assert (await storing.browser().post("/api/auth/register", json=registration(one))).status_code == 201
    answer = await storing.browser().post("/api/auth/login", json=credentials(other))
    assert refusal(answer) == (400, "invalid_credentials")


async def test_a_password_is_neither_answered_nor_logged(service: Service) -> None:
    """Right or wrong, at every door, what was typed is in no answer; `nothing_is_logged` looks at the log."""
    secret = f"{MARKER} and more"
    tries = [
        ("register", registration("gus@example.com", password=secret, passwordConfirm=secret), 201),
        ("register", registration("gus@example.com", password=secret, passwordConfirm=secret), 409),
        ("register", registration("hal@example.com", password=secret), 400),
        ("login", credentials("gus@example.com", secret), 200),
        ("login", credentials("gus@example.com", secret + "!"), 400),
        ("login", credentials(f"{MARKER}@example.com", secret), 400),
    ]
    for path, body, status in tries:
        answer = await service.browser().post(f"/api/auth/{path}", json=body)
        assert_nothing_repeated(answer, status)
    browser = service.browser()
    await browser.post("/api/auth/login", json=credentials("gus@example.com", secret))
    for path, body, status in (
        ("confirm", {"password": secret}, 200),
        ("confirm", {"password": secret + "!"}, 400),
        ("password/change", {"current_password": secret + "!", "new_password": secret}, 400),
        ("password/change", {"current_password": secret, "new_password": secret + "?"}, 204),
    ):
        assert_nothing_repeated(await browser.post(f"/api/auth/{path}", json=body), status)
    for password, status in ((secret, 400), (secret + "?", 200)):
        form = {"grant_type": "password", "username": "gus@example.com", "password": password}
        assert_nothing_repeated(await browser.post(TOKEN, data=form), status)


def assert_nothing_repeated(answer: httpx2.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert MARKER not in answer.text
    assert MARKER not in str(answer.headers)


@pytest.mark.parametrize("length", [8, 256])
async def test_passwords_of_every_allowed_length_and_kind_are_taken(storing: Service, length: int) -> None:
    """8 to 256 characters, of four bytes each as well: the limit counts characters, and nothing is cut off."""
    password, email = "\U0001f511" * length, f"long{length}@example.com"
    body = registration(email, password=password, passwordConfirm=password)
    assert (await storing.browser().post("/api/auth/register", json=body)).status_code == 201
    assert (await storing.browser().post("/api/auth/login", json=credentials(email, password))).status_code == 200
    other = password[:-1] + "x"
    assert (await storing.browser().post("/api/auth/login", json=credentials(email, other))).status_code == 400


# --- forms ------------------------------------------------------------------------------------------------------------

INVALID_REQUEST, UNSUPPORTED_GRANT = (400, "validation_failed"), (400, "unsupported_grant_type")
REFUSED_TOKEN, REFUSED_PASSWORD = (400, "invalid_token"), (400, "invalid_credentials")
REFRESH, BY_PASSWORD = b"grant_type=refresh_token&refresh_token=", b"grant_type=password&username="

FORMS: dict[str, tuple[bytes, tuple[int, str]]] = {
    "none": (b"", INVALID_REQUEST),
    "separators": (b"&&&=&=&", INVALID_REQUEST),
    "JSON": (json.dumps({"grant_type": "password", "username": MARKER}).encode(), INVALID_REQUEST),
    "a field twice": (b"grant_type=password&grant_type=" + MARKER.encode(), INVALID_REQUEST),
    "a field twice the same": (REFRESH + b"a&refresh_token=a", INVALID_REQUEST),
    "a field twice, once empty": (b"grant_type=&" + REFRESH + MARKER.encode(), INVALID_REQUEST),
    "a field twice, in other spelling": (REFRESH + b"a&refresh%5Ftoken=" + MARKER.encode(), INVALID_REQUEST),
    "a field twice that nobody asked for": (REFRESH + b"a&x=1&x=" + MARKER.encode(), INVALID_REQUEST),
    "NUL": (REFRESH + MARKER.encode() + b"%00", INVALID_REQUEST),
    "a bare NUL": (REFRESH + MARKER.encode() + b"\0", INVALID_REQUEST),
    "NUL in a name": (REFRESH + b"a&%00=" + MARKER.encode(), INVALID_REQUEST),
    "NUL where nobody looks": (REFRESH + b"a&x=%00", INVALID_REQUEST),
    "not UTF-8": (REFRESH + MARKER.encode() + b"%ff", INVALID_REQUEST),
    "not UTF-8 in a name": (REFRESH + b"a&%ff=" + MARKER.encode(), INVALID_REQUEST),
    "an overlong NUL": (REFRESH + b"%c0%80", INVALID_REQUEST),
    "a surrogate in UTF-8": (REFRESH + b"%ed%a0%80", INVALID_REQUEST),
    "bytes that are no UTF-8": (REFRESH + b"\xff" + MARKER.encode(), INVALID_REQUEST),
    "bytes that are UTF-8": (BY_PASSWORD + "jos\u00e9@example.com".encode(), INVALID_REQUEST),
    "UTF-16": ((REFRESH + MARKER.encode()).decode().encode("utf-16"), INVALID_REQUEST),
    "33 fields": (REFRESH + b"a" + b"".join(b"&x%d=1" % number for number in range(31)), INVALID_REQUEST),
    "7,000 fields": (b"&".join(b"x%d=1" % number for number in range(7_000)), INVALID_REQUEST),
    "65,536 separators": (b"&" * 65_536, INVALID_REQUEST),
    "no grant type": (b"refresh_token=" + MARKER.encode(), INVALID_REQUEST),
    "an empty grant type": (b"grant_type=&refresh_token=" + MARKER.encode(), INVALID_REQUEST),
    "a grant type without a value": (b"grant_type&refresh_token=" + MARKER.encode(), INVALID_REQUEST),
    "another case": (b"Grant_Type=refresh_token&refresh_token=" + MARKER.encode(), INVALID_REQUEST),
    "no token": (b"grant_type=refresh_token", INVALID_REQUEST),
    "an empty token": (REFRESH, INVALID_REQUEST),
    "no password": (BY_PASSWORD + b"ada%40example.com", INVALID_REQUEST),
    "an empty password": (BY_PASSWORD + b"ada%40example.com&password=", INVALID_REQUEST),
    "no user name": (b"grant_type=password&password=" + MARKER.encode(), INVALID_REQUEST),
    "another grant type": (b"grant_type=authorization_code&code=" + MARKER.encode(), UNSUPPORTED_GRANT),
    "a grant type that is none": (b"grant_type=" + MARKER.encode(), UNSUPPORTED_GRANT),
    "a grant type in another case": (b"grant_type=Refresh_Token&refresh_token=" + MARKER.encode(), UNSUPPORTED_GRANT),
    "a grant type and spaces": (b"grant_type=+refresh_token+&refresh_token=" + MARKER.encode(), UNSUPPORTED_GRANT),
    "semicolons": (b"grant_type=refresh_token;refresh_token=" + MARKER.encode(), UNSUPPORTED_GRANT),
    "percent signs that begin nothing": (b"grant_type=%zz%&refresh_token=" + MARKER.encode(), UNSUPPORTED_GRANT),
    "a token that is none": (REFRESH + MARKER.encode(), REFUSED_TOKEN),
    "a token with line breaks": (REFRESH + b"a.b.c%0d%0aX:" + MARKER.encode(), REFUSED_TOKEN),
    "a token of 60,000 characters": (REFRESH + b"." * 60_000, REFUSED_TOKEN),
    "a token that is no ASCII": (REFRESH + b"%c3%a9.%c3%a9.%c3%a9", REFUSED_TOKEN),
    "a user name that is no address": (BY_PASSWORD + MARKER.encode() + b"&password=12345678", REFUSED_PASSWORD),
    "a user name of 10,000 combining marks": (
        *(BY_PASSWORD + b"e" + b"%CC%81" * 10_000 + b"%40example.com&password=12345678", REFUSED_PASSWORD),
    ),
    "a password of seven": (BY_PASSWORD + b"ada%40example.com&password=1234567", REFUSED_PASSWORD),
    "a password of 60,000": (BY_PASSWORD + b"ada%40example.com&password=" + b"x" * 60_000, REFUSED_PASSWORD),
    "a foreign client": (REFRESH + b"a&client_id=" + MARKER.encode(), (401, "invalid_client")),
    "our client in another case": (REFRESH + b"a&client_id=Latchstring", (401, "invalid_client")),
    "a scope": (REFRESH + b"a&scope=" + MARKER.encode(), (400, "invalid_scope")),
    "64 KiB and a byte": (REFRESH.ljust(65_537, b"x"), TOO_LARGE),
    "65 KiB": (REFRESH.ljust(65 * 1024, b"x"), TOO_LARGE),
    "10 MB announced": (MARKER.encode().ljust(TEN_MEGABYTES, b"x"), TOO_LARGE),
}


@pytest.mark.parametrize(("content", "expected"), FORMS.values(), ids=FORMS.keys())
async def test_a_form_that_is_no_honest_one_is_refused(
    service: Service, content: bytes, expected: tuple[int, str]
) -> None:
    """In the shape of RFC 6749, with nothing of what was sent; a field that is given twice is no field."""
    answer = await service.browser().post(TOKEN, content=content, headers=FORM)
    assert refusal(answer) == expected


async def test_ten_megabytes_of_a_form_in_pieces_are_not_read(service: Service) -> None:
    """A form that announces no length is left where the limit is reached."""
    assert refusal(await service.browser().post(TOKEN, content=ten_megabytes(), headers=FORM)) == TOO_LARGE


FORM_TYPES: dict[str, list[bytes]] = {
    "missing": [],
    "empty": [b""],
    "JSON": [b"application/json"],
    "text": [b"text/plain"],
    "multipart": [b"multipart/form-data; boundary=application/x-www-form-urlencoded"],
    "a longer name": [b"application/x-www-form-urlencodedx"],
    "Latin-1": [b"application/x-www-form-urlencoded; charset=latin-1"],
    "UTF-16 by RFC 2231": [b"application/x-www-form-urlencoded; charset*=us-ascii''utf-16"],
    "two headers": [b"application/x-www-form-urlencoded", b"application/json"],
    "one header twice": [b"application/x-www-form-urlencoded", b"application/x-www-form-urlencoded"],
    "not ASCII": [b"\xff\xfe" + MARKER.encode()],
}


@pytest.mark.parametrize("types", FORM_TYPES.values(), ids=FORM_TYPES.keys())
async def test_a_form_of_another_content_type_is_refused(service: Service, types: list[bytes]) -> None:
    """However good the form: only its own content type, said once, is taken for one."""
    form = urlencode({"grant_type": "password", **username_and_password()}).encode()
    answer = await service.browser().post(TOKEN, content=form, headers=[(b"content-type", value) for value in types])
    assert refusal(answer) == UNSUPPORTED


@pytest.mark.parametrize(
    "content_type",
    [
        *("application/x-www-form-urlencoded", "Application/X-WWW-Form-URLEncoded"),
        *('application/x-www-form-urlencoded;charset="UTF-8"', "application/x-www-form-urlencoded;"),
    ],
)
async def test_an_honest_form_is_taken(service: Service, access_token: str, content_type: str) -> None:
    """In every spelling of its type, with fields nobody knows and with empty ones; the refusals are about no more."""
    assert access_token, "somebody is registered"
    others = {"client_id": "", "scope": "", "x": MARKER, **{f"x{number}": "1" for number in range(25)}}
    form = urlencode({"grant_type": "password", **username_and_password(), **others}).encode()
    answer = await service.browser().post(TOKEN, content=form, headers={"Content-Type": content_type})
    assert answer.status_code == 200, answer.text
    assert MARKER not in answer.text


async def test_a_form_of_64_kib_is_taken(service: Service, access_token: str) -> None:
    """The limit is where it is said to be."""
    assert access_token, "somebody is registered"
    form = urlencode({"grant_type": "password", **username_and_password(), "x": ""}).encode().ljust(65_536, b"x")
    assert (await service.browser().post(TOKEN, content=form, headers=FORM)).status_code == 200


def username_and_password() -> dict[str, str]:
    """Returns what the password grant asks for."""
    return {"username": "ada@example.com", "password": PASSWORD}


# --- parameters -------------------------------------------------------------------------------------------------------

SESSION_IDS = [
    *(MARKER, "0", "null", "-1", "all", "*", "%00", "%ff%fe", "%0d%0aX:%20a", "'%20or%20'1'='1", "x" * 10_000),
    *("01a20ac2-70a9-78e9-8317-1ad0ae37d02", "01a20ac2-70a9-78e9-8317-1ad0ae37d02g", " 1", "%2e%2e", "{session_id}"),
    *("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
]


@pytest.mark.parametrize("session_id", SESSION_IDS, ids=lambda session_id: session_id[:40])
async def test_a_session_id_that_is_none_is_not_found(service: Service, access_token: str, session_id: str) -> None:
    """Unknown or malformed, it is the same 404: no 422 that would tell how ids are written, and no 500."""
    headers = {"Authorization": f"Bearer {access_token}"}
    answer = await service.browser().delete(f"/api/auth/sessions/{session_id}", headers=headers)
    assert refusal(answer) == (404, "session_not_found")


SPELLINGS: dict[str, Callable[[str], str]] = {
    "upper case": str.upper,
    "no dashes": lambda session_id: session_id.replace("-", ""),
    "braces": "{{{}}}".format,
    "a URN": "urn:uuid:{}".format,
    "a space": "{}%20".format,
}


@pytest.mark.parametrize("spelled", SPELLINGS.values(), ids=SPELLINGS.keys())
async def test_a_session_id_has_one_spelling(storing: Service, spelled: Callable[[str], str]) -> None:
    """What Python's reader of UUIDs takes besides is no id of ours, and the session lives."""
    browser = await storing.registered(f"{uuid4().hex}@example.com")
    own = (await browser.get("/api/auth/sessions")).json()[0]["id"]
    assert refusal(await browser.delete(f"/api/auth/sessions/{spelled(own)}")) == (404, "session_not_found")
    assert (await browser.get("/api/dashboard")).status_code == 200
    assert (await browser.delete(f"/api/auth/sessions/{own}")).status_code == 204


@pytest.mark.parametrize(
    "query",
    [
        *(f"all={MARKER}", "all=", "all", "all=2", "all=-1", "all=null", "all=true,false", "all=[]", "all=%00"),
        *("all=%ff", "all=tru%65x", "all=true%20", f"all={'x' * 10_000}", "all=true&all=perhaps"),
    ],
    ids=lambda query: query[:20],
)
async def test_what_is_neither_true_nor_false_ends_no_session(service: Service, query: str) -> None:
    """422 with a pointer to the parameter; nobody is signed out by a typing error."""
    email = f"{uuid4().hex}@example.com"
    here, there = await service.registered(email), service.browser()
    await there.post("/api/auth/login", json=credentials(email))
    answer = await here.delete(f"/api/auth/sessions?{query}")
    assert refusal(answer) == UNPROCESSABLE
    assert [error["pointer"] for error in answer.json()["errors"]] == ["#/all"]
    for browser in (here, there):
        assert (await browser.get("/api/dashboard")).status_code == 200


# --- credentials (GHSA-xmf8: a malformed Authorization header crashed somebody's server) ------------------------------

INVALID_HEADER, MISSING, INVALID = (
    (403, "invalid_authorization_header"),
    (401, "missing_token"),
    (401, "invalid_token"),
)

AUTHORIZATIONS: dict[str, tuple[list[bytes], tuple[int, str]]] = {
    "empty": ([b""], MISSING),
    "another scheme": ([b"Basic " + MARKER.encode()], MISSING),
    "a scheme alone": ([b"Negotiate"], MISSING),
    "a scheme that begins like ours": ([b"Bearerx " + MARKER.encode()], MISSING),
    "no token": ([b"Bearer"], INVALID_HEADER),
    "spaces for a token": ([b"Bearer   "], INVALID_HEADER),
    "two tokens": ([b"Bearer a b"], INVALID_HEADER),
    "a list": ([b"Bearer a, Bearer b"], INVALID_HEADER),
    "parameters": ([b'Bearer token="' + MARKER.encode() + b'"'], INVALID_HEADER),
    "two headers": ([b"Bearer a", b"Bearer b"], INVALID_HEADER),
    "two headers of two schemes": ([b"Basic a", b"Bearer b"], INVALID_HEADER),
    "not ASCII": ([b"Bearer \xff\xfe"], INVALID_HEADER),
    "NUL": ([b"Bearer a\0b"], INVALID_HEADER),
    "a line break": ([b"bearer a\r\nX: " + MARKER.encode()], INVALID_HEADER),
    "quotes": ([b'Bearer "a.b.c"'], INVALID_HEADER),
    "padding alone": ([b"Bearer ="], INVALID_HEADER),
    "no JWT": ([b"Bearer " + MARKER.encode()], INVALID),
    "three short parts": ([b"BEARER a.b.c"], INVALID),
    "empty parts": ([b"Bearer .."], INVALID),
    "10,000 dots": ([b"Bearer " + b"." * 10_000], INVALID),
    "1 MB": ([b"Bearer " + b"a" * 1_000_000], INVALID),
    "padding in the middle": ([b"Bearer YQ==.YQ.YQ"], INVALID_HEADER),
    "a header that is a list": ([b"Bearer W10.W10.YQ"], INVALID),
    "a header that is no JSON": ([b"Bearer //79.e30.YQ"], INVALID),
    "five parts": ([b"Bearer a.b.c.d.e"], INVALID),
}


@pytest.mark.parametrize(("values", "expected"), AUTHORIZATIONS.values(), ids=AUTHORIZATIONS.keys())
async def test_a_malformed_authorization_header_is_refused(
    send: Send, operations: list[Operation], values: list[bytes], expected: tuple[int, str]
) -> None:
    """403 `Invalid Header Error` when it is `Bearer` and not one token, 401 when the token is none of ours."""
    for operation in operations:
        headers = [(b"authorization", value) for value in values]
        headers.append((b"content-type", b"application/json"))
        content = json.dumps(operation.valid_body()).encode() if operation.body_schema else None
        if operation.guarded:
            answer = await send(operation, content, headers, authorized=False)
            assert refusal(answer) == expected, operation
            if expected == INVALID_HEADER:
                assert answer.json()["detail"] == "Invalid Header Error"
        elif operation.path.endswith("/refresh"):
            code = "missing_refresh_token" if expected == MISSING else expected[1]
            assert refusal(await send(operation, content, headers))[1] == code, operation
        elif operation.body_schema is None:
            assert (await send(operation, content, headers)).status_code == 200, operation


COOKIES: dict[str, tuple[list[bytes], tuple[int, str]]] = {
    "empty": ([b""], MISSING),
    "separators": ([b"; ; ;=;==; , ;"], MISSING),
    "a name alone": ([b"access_token"], MISSING),
    "no value": ([b"access_token="], MISSING),
    "no name": ([b"=access_token"], MISSING),
    "not ASCII": ([b"access_token\xff=a; \xfe=" + MARKER.encode()], MISSING),
    "10,000 others": ([b"; ".join(b"c%d=a" % number for number in range(10_000))], MISSING),
    "100,000 separators": ([b";" * 100_000], MISSING),
    "not a token": ([b"access_token=" + MARKER.encode()], INVALID),
    "NUL": ([b"access_token=\0"], INVALID),
    "not ASCII in the value": ([b"access_token=\xff\xfe.\xff.\xff"], INVALID),
    "quotes": ([b'access_token="a.b.c"'], INVALID),
    "1 MB": ([b"access_token=" + b"a" * 1_000_000], INVALID),
    "twice": ([b"access_token=a; access_token=b"], (400, "duplicate_cookie")),
    "twice the same": ([b"access_token=a;access_token=a"], (400, "duplicate_cookie")),
    "twice, once empty": ([b"access_token=; access_token=a"], (400, "duplicate_cookie")),
    "twice, in two headers": ([b"access_token=a", b"access_token=a"], (400, "duplicate_cookie")),
}


@pytest.mark.parametrize(("values", "expected"), COOKIES.values(), ids=COOKIES.keys())
async def test_a_malformed_cookie_is_refused(
    send: Send, operations: list[Operation], values: list[bytes], expected: tuple[int, str]
) -> None:
    """What is none of ours is not seen; what has our name must be one token. The refresh cookie is read alike."""
    for operation in operations:
        content = json.dumps(operation.valid_body()).encode() if operation.body_schema else None
        is_refresh = operation.path.endswith("/refresh")
        name = b"refresh_token" if is_refresh else b"access_token"
        headers = [(b"cookie", value.replace(b"access_token", name)) for value in values]
        headers.append((b"content-type", b"application/json"))
        if operation.guarded or is_refresh:
            answer = await send(operation, content, headers, authorized=False)
            code = "missing_refresh_token" if is_refresh and expected == MISSING else expected[1]
            assert refusal(answer)[1] == code, operation
        elif operation.body_schema is None:
            assert (await send(operation, content, headers)).status_code == 200, operation


@pytest.mark.parametrize(
    "cookie", ["refresh_token=a; refresh_token=b", "refresh_token=; refresh_token={refresh_token}"]
)
async def test_two_refresh_cookies_confirm_nothing(service: Service, cookie: str) -> None:
    """The second door that reads the refresh cookie refuses two of it as well, and replaces neither."""
    kept = dict((await service.registered(f"{uuid4().hex}@example.com")).cookies)
    headers = {"Authorization": f"Bearer {kept['access_token']}", "Cookie": cookie.format(**kept)}
    answer = await service.browser().post("/api/auth/confirm", json={"password": PASSWORD}, headers=headers)
    assert refusal(answer) == (400, "duplicate_cookie")
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        *(f"/{MARKER}", f"/api/auth/{MARKER}", "/api/auth/login/..%2f..%2fetc/passwd", "/api/auth/me%00", "/%ff%fe"),
        *(f"/api/auth/login/?{MARKER}", "/api/auth/LOGIN", f"/{MARKER * 1000}"),
    ],
    ids=lambda path: path[:30],
)
@pytest.mark.parametrize("method", ["GET", "POST", "BREW"])
async def test_an_address_that_is_none_is_a_plain_404(service: Service, method: str, path: str) -> None:
    """No redirect built from what the visitor sent, and nothing of it repeated."""
    assert refusal(await service.browser().request(method, path))[1] == "not_found"


# --- bytes on a socket ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The real server; its log must tell of none of this."""
    with ServerProcess(tmp_path_factory.mktemp("server"), variables=CHEAP_HASH) as running:
        yield running
        with running.client() as client:
            assert client.get("/healthz").status_code == 200
        assert "Traceback" not in running.words()
        assert MARKER not in running.words()


LOGIN = b"POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"

MALFORMED_HTTP: dict[str, bytes] = {
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "words": MARKER.encode() + b"\r\n\r\n",
    "a version of the future": b"GET /healthz HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "NUL in a header": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n",
    "NUL in the address": b"GET /healthz\0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a folded header": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n",
    "a space before the colon": b"GET /healthz HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "no colon": b"GET /healthz HTTP/1.1\r\nHost\r\n\r\n",
    "a bare carriage return": b"GET /healthz HTTP/1.1\r\nHost: localhost\rX: y\r\n\r\n",
    "a length that is no number": LOGIN + b"Content-Length: ten\r\n\r\n{}",
    "a negative length": LOGIN + b"Content-Length: -1\r\n\r\n{}",
    "an endless length": LOGIN + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n{}",
    "two lengths": LOGIN + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}}",
    "a length and chunks": LOGIN + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunks that are none": LOGIN + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + MARKER.encode(),
    "more than was announced": LOGIN + b"Content-Length: 2\r\n\r\n{}" + MARKER.encode() + b"\r\n\r\n",
    "chunks of chunks": LOGIN + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", MALFORMED_HTTP.values(), ids=MALFORMED_HTTP.keys())
def test_malformed_http_is_refused_and_the_server_goes_on(server: ServerProcess, request_bytes: bytes) -> None:
    """400 and the connection closed, before any route sees it; the fixture looks that the log says nothing of it."""
    status, answer = raw(server, request_bytes)
    assert status == 400
    assert MARKER.encode() not in answer


def test_a_body_shorter_than_its_length_ends_quietly(server: ServerProcess) -> None:
    """Who announces 50 bytes, sends 10 and hangs up is owed nothing; the log is not filled by it either."""
    for _ in range(3):
        with connection(server) as client:
            client.sendall(LOGIN + b"Content-Length: 50\r\n\r\n" + MARKER.encode()[:10])
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass


def test_a_body_announced_too_large_is_refused_before_it_comes(server: ServerProcess) -> None:
    """413 at once, though not a byte of the 10 MB has been sent."""
    status, _ = raw(server, LOGIN + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % TEN_MEGABYTES)
    assert status == 413


def test_a_head_without_end_is_not_kept(server: ServerProcess) -> None:
    """Whoever sends headers for ever is cut off long before the server has taken 16 MB of them in."""
    sent = 0
    with connection(server) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
        with contextlib.suppress(ConnectionError):
            while sent < 16 * 1024 * 1024:
                sent += client.send(b"x" * 65_536)
    assert sent < 16 * 1024 * 1024, "all of it was taken in"


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
async def test_a_slow_head_is_closed(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not finish its headers in time loses its connection (slowloris); here in 0.05 s, not 10."""

    async def never_called(_scope: Scope, _receive: Receive, _send: ASGISend) -> None:
        pytest.fail("a request that was not finished reached the application")

    monkeypatch.setattr(connections, "HEAD_TIMEOUT_SECONDS", 0.05)
    config = uvicorn.Config(
        never_called, host="127.0.0.1", port=0, http=BoundedProtocol, log_config=None, lifespan="off"
    )
    server = uvicorn.Server(config)
    listening = config.bind_socket()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listening])
        async with await anyio.connect_tcp(*listening.getsockname()) as client:
            if sent:
                await client.send(sent)
            with anyio.fail_after(HANG_SECONDS), pytest.raises(anyio.EndOfStream):
                await client.receive()
        server.should_exit = True
    listening.close()


def serve_impatiently() -> None:
    """Runs `latchstring serve`, whose limit is a second."""
    connections.HEAD_TIMEOUT_SECONDS = 1
    serve()


def test_the_server_closes_a_slow_head(tmp_path: Path) -> None:
    """T38: `latchstring serve` is what keeps that limit; here it is a second, and otherwise no longer than a body's."""
    assert connections.HEAD_TIMEOUT_SECONDS <= body_module.TIMEOUT_SECONDS
    with (
        ServerProcess(tmp_path, variables=CHEAP_HASH, program=serve_impatiently) as server,
        connection(server) as client,
    ):
        client.settimeout(HANG_SECONDS)
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        assert client.recv(4096) == b""


async def test_a_slow_body_is_refused(send: Send, operations: list[Operation], monkeypatch: pytest.MonkeyPatch) -> None:
    """A body has its time as well: 408, here after 0.05 s, not 10."""

    async def slow_body() -> AsyncIterator[bytes]:
        yield b"{"
        await anyio.sleep(60)

    monkeypatch.setattr(body_module, "TIMEOUT_SECONDS", 0.05)
    for operation in operations:
        if operation.body_schema is not None:
            answer = await send(operation, slow_body(), FORM if operation.takes_form else JSON)
            assert refusal(answer) == (408, "body_timeout"), operation


def connection(server: ServerProcess) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=HANG_SECONDS)


def raw(server: ServerProcess, request_bytes: bytes) -> tuple[int, bytes]:
    """Sends bytes, reads until the server hangs up, and returns the first status with all that came."""
    with connection(server) as client:
        client.sendall(request_bytes)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := client.recv(4096):
            answer += piece
    return int(answer.split(b" ", 2)[1]) if answer else 0, answer
