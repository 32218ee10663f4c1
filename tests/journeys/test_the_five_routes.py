"""The tutorial's five routes, from registration to a sign-out that signs out."""

from tests.support.service import Service, credentials, registration


async def test_register_dashboard_refresh_logout(service: Service) -> None:
    """One visitor's whole visit; after logout neither token is worth anything."""
    browser = service.browser()
    answer = await browser.post("/api/auth/register", json=registration("Ada@Example.com"))
    assert answer.status_code == 201
    user = answer.json()
    assert user.keys() == {"id", "first_name", "last_name", "email", "created_at", "email_verified"}
    assert user["email"] == "ada@example.com"

    answer = await browser.get("/api/dashboard/dashboard")
    assert (answer.status_code, answer.json()) == (200, {"message": "Hello from the dashboard!"})

    service.clock.advance(minutes=15)
    answer = await browser.get("/api/dashboard")
    assert (answer.status_code, answer.json()["detail"]) == (401, "You must refresh")

    answer = await browser.post("/api/auth/refresh")
    assert (answer.status_code, answer.json()) == (200, user)
    assert (await browser.get("/api/dashboard")).status_code == 200

    kept = dict(browser.cookies)
    answer = await browser.post("/api/auth/logout")
    assert (answer.status_code, answer.json()) == (200, {"status": "success"})
    assert not browser.cookies

    thief = service.browser(headers={"Cookie": "; ".join(f"{name}={value}" for name, value in kept.items())})
    assert (await thief.get("/api/dashboard")).json()["code"] == "session_ended"
    assert (await thief.post("/api/auth/refresh")).json()["code"] == "session_ended"


async def test_login_gives_one_answer_for_every_failure(service: Service) -> None:
    """Unknown address and wrong password can't be told apart (OWASP: generic error messages)."""
    await service.registered()
    browser = service.browser()
    wrong = await browser.post("/api/auth/login", json=credentials(password="not the password"))
    unknown = await browser.post("/api/auth/login", json=credentials(email="bob@example.com"))
    for answer in (wrong, unknown):
        assert answer.status_code == 400
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["detail"] == "Incorrect username or password"
    assert wrong.json().keys() == unknown.json().keys()
    assert (await browser.post("/api/auth/login", json=credentials(email="ADA@example.COM"))).status_code == 200
