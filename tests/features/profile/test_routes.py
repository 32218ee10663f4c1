"""`/me`: the signed-in user sees who they are, and changes their names."""

import json

from latchstring import User
from latchstring.foundation.events import OPERATOR
from tests.support.backends import ON_SQLITE
from tests.support.service import Service, credentials


@ON_SQLITE
async def test_me_is_the_user_that_registered(service: Service) -> None:
    """The six members of the contract, and never anything of the password."""
    browser = await service.registered()
    user = (await browser.get("/api/auth/me")).json()
    assert user.keys() == {"id", "first_name", "last_name", "email", "created_at", "email_verified"}
    assert (user["first_name"], user["last_name"], user["email"]) == ("Ada", "Lovelace", "ada@example.com")
    assert user["email_verified"] is False


CHANGES: list[tuple[dict[str, str | None], tuple[str, str]]] = [
    ({"first_name": "Augusta", "last_name": "King"}, ("Augusta", "King")),
    ({"first_name": "Augusta"}, ("Augusta", "Lovelace")),
    ({"last_name": "King"}, ("Ada", "King")),
    ({}, ("Ada", "Lovelace")),
    ({"first_name": None, "last_name": None}, ("Ada", "Lovelace")),
    ({"first_name": None, "last_name": "King"}, ("Ada", "King")),
    ({"first_name": "  Augusta \n"}, ("Augusta", "Lovelace")),
    (
        {"first_name": "\u5c0f\u660e", "last_name": "O\u2019Brien \U0001f511"},
        ("\u5c0f\u660e", "O\u2019Brien \U0001f511"),
    ),
    ({"first_name": "x" * 100}, ("x" * 100, "Lovelace")),
    ({"first_name": "'; DROP TABLE latchstring_users; --"}, ("'; DROP TABLE latchstring_users; --", "Lovelace")),
    ({"first_name": "<script>alert(1)</script>"}, ("<script>alert(1)</script>", "Lovelace")),
]

NO_NAMES: list[object] = [
    *("", " ", "\t\n", "\u2003", "x" * 101, "a\nb", "a\x1bb", "a\x7fb", "a\x85b", "a\0b", "a\ud800b"),
    *(7, True, [], {}),
]


async def test_names_change_one_by_one(service: Service) -> None:
    """What is left out, or null, stays; the answer and the next reading agree."""
    browser = await service.registered()
    for changes, names in CHANGES:
        before = (await browser.patch("/api/auth/me", json={"first_name": "Ada", "last_name": "Lovelace"})).json()
        answer = await browser.patch("/api/auth/me", json=changes)
        assert answer.status_code == 200, changes
        assert answer.json() == before | dict(zip(("first_name", "last_name"), names, strict=True))
        assert (await browser.get("/api/auth/me")).json() == answer.json()


@ON_SQLITE
async def test_what_is_no_name_changes_nothing(service: Service) -> None:
    """Empty, too long, with control characters (they would end a header line in a mail): 422, both names as before."""
    browser = await service.registered()
    before = (await browser.get("/api/auth/me")).json()
    for name in NO_NAMES:
        # As ASCII, so that a lone surrogate can be sent at all.
        body = json.dumps({"first_name": "Augusta", "last_name": name}).encode()
        answer = await browser.patch("/api/auth/me", content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed"), ascii(name)
        assert (await browser.get("/api/auth/me")).json() == before


@ON_SQLITE
async def test_nothing_but_the_names_can_be_changed(service: Service) -> None:
    """Members that are nobody's to set are not set (CVE-2025-61928: a user id in the body was trusted)."""
    browser, other = await service.registered(), await service.registered("bob@example.com")
    before, others = (await browser.get("/api/auth/me")).json(), (await other.get("/api/auth/me")).json()
    body = others | {"email_verified": True, "password": "another one", "roles": ["admin"], "disabled_at": None}
    answer = await browser.patch("/api/auth/me", json=body | {"first_name": "Augusta"})
    assert (answer.status_code, answer.json()) == (200, before | {"first_name": "Augusta"})
    assert (await other.get("/api/auth/me")).json() == others
    assert (await service.browser().post("/api/auth/login", json=credentials())).status_code == 200


async def test_a_deleted_user_is_not_found(service: Service) -> None:
    """404 `User not found` at every guarded route from the moment it is deleted, expired tokens aside."""
    browser = await service.registered()
    user = (await browser.get("/api/auth/me")).json()
    await service.auth.users.delete((await _user(service)).id, source=OPERATOR)
    for method, path in (("GET", "/api/auth/me"), ("PATCH", "/api/auth/me"), ("GET", "/api/dashboard")):
        answer = await browser.request(method, path, json={} if method == "PATCH" else None)
        assert (answer.status_code, answer.json()["detail"]) == (404, "User not found")
        assert answer.json()["code"] == "user_not_found"
        assert user["first_name"] not in answer.text
    answer = await browser.post("/api/auth/refresh")
    assert (answer.status_code, answer.json()["detail"]) == (401, "The user belonging to this token does not exist.")


@ON_SQLITE
async def test_a_disabled_user_is_shut_out(service: Service) -> None:
    """401 at every guarded route; enabled again, the old tokens stay worth nothing and a new sign-in is due."""
    browser = await service.registered()
    user_id = (await _user(service)).id
    await service.auth.users.disable(user_id, source=OPERATOR)
    for enabled in (False, True):
        if enabled:
            await service.auth.users.enable(user_id, source=OPERATOR)
        for method, path in (("GET", "/api/auth/me"), ("PATCH", "/api/auth/me"), ("GET", "/api/dashboard")):
            answer = await browser.request(method, path, json={"first_name": "Eve"} if method == "PATCH" else None)
            assert (answer.status_code, answer.json()["code"]) == (401, "session_ended")
            assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert (await _user(service)).first_name == "Ada"


async def _user(service: Service) -> User:
    user = await service.auth.users.find_by_email("ada@example.com")
    assert user is not None
    return user
