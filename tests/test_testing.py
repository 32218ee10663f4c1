"""`latchstring.testing`, as its page says: the page's own tests are run, on an application that is imported."""

import subprocess
from pathlib import Path

import pytest

from tests.project.test_documents import python_of
from tests.support.folders import ROOT
from tests.support.process import forked, run_pytest
from tests.support.service import SECRET

APPLICATION = """
import os
from typing import Annotated
from fastapi import Depends, FastAPI
from latchstring import Auth, CurrentUser, UserRegistered, requires

app = FastAPI()
auth = Auth("sqlite+aiosqlite:///never-opened.db", secret=os.environ["APP_SECRET"])
auth.install(app, prefix="/auth")
heard = []

@app.get("/me")
async def me(user: CurrentUser) -> str:
    return user.email

@app.get("/reports", dependencies=[Depends(requires(role="editor"))])
async def reports() -> str:
    return "all of them"

@auth.after(UserRegistered)
async def hear(event):
    heard.append(event.email)
"""
MORE = """
import time
import pytest
from latchstring import User
from main import heard

def test_each_test_has_users_of_its_own(client, auth, sign_in_as):
    assert client.portal.call(auth.users.list) == []
    heard.clear()
    ada = sign_in_as("Ada@Example.com")
    (user,) = client.portal.call(auth.users.list)
    assert (user.email, isinstance(user, User)) == ("ada@example.com", True)
    client.portal.call(auth.drained)
    assert heard == ["ada@example.com"]
    again = sign_in_as(user, bearer=True)
    assert again.get("/me").json() == "ada@example.com"
    assert len(client.portal.call(auth.users.list)) == 1
    assert ada.post("/auth/logout").status_code == 200
    assert (ada.get("/me").status_code, again.get("/me").status_code) == (401, 200)

def test_what_another_test_did_is_forgotten(client, auth, sign_in_as):
    from latchstring import APPLICATION
    client.portal.call(lambda: auth.sessions.revoke_everyone(source=APPLICATION))
    assert sign_in_as("ada@example.com").get("/me").status_code == 200

def test_epochs_of_other_tests_count_for_nothing(sign_in_as):
    assert sign_in_as("ada@example.com").get("/me").status_code == 200

def test_a_password_costs_next_to_nothing(client, auth):
    body = {"first_name": "A", "last_name": "L", "email": "ada@example.com", "password": "correct horse"}
    body |= {"passwordConfirm": "correct horse"}
    assert client.post("/auth/register", json=body).status_code == 201
    assert client.post("/auth/login", json=body | {"password": "wrong horse"}).status_code in {400, 422}
    # 8 KiB of memory and one pass, where 19 MiB and two are the default.
    made = client.portal.call(auth.parts.tools.passwords.hash, "correct horse")
    assert made.startswith("$argon2id$v=19$m=8,t=1,p=1$")

def test_a_storm_of_one_who_is_signed_out(sign_in_as, refresh_storm, clock):
    ada = sign_in_as("ada@example.com")
    clock.advance(days=2)
    report = refresh_storm(ada, tabs=3)
    assert (report.statuses, report.everyone_is_signed_in) == ([401] * 3, False)

def test_a_storm_needs_a_session(client, refresh_storm):
    with pytest.raises(pytest.UsageError, match="sign in first"):
        refresh_storm(client)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An application and the page's `conftest.py`."""
    conftest, _, _ = python_of(ROOT / "docs" / "testing.md")
    (tmp_path / "main.py").write_text(APPLICATION)
    (tmp_path / "conftest.py").write_text(conftest.text)
    return tmp_path


def run(folder: Path) -> "subprocess.CompletedProcess[str]":
    # Plugins of ours would be loaded as well, which takes longer than the tests.
    variables = {"APP_SECRET": SECRET, "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    words = ("pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "--rootdir", str(folder))
    return forked(run_pytest, *words, cwd=folder, variables=variables)


def test_the_pages_tests_pass(folder: Path) -> None:
    """As they stand there, and some more of what each fixture does; the application's own database is never opened."""
    _, tests, _ = python_of(ROOT / "docs" / "testing.md")
    (folder / "test_page.py").write_text(tests.text)
    (folder / "test_more.py").write_text(MORE)
    done = run(folder)
    assert done.returncode == 0, done.stdout
    assert not (folder / "never-opened.db").exists()


def test_where_the_application_has_its_users(folder: Path) -> None:
    """With the page's last fixture, they are left there."""
    _, tests, override = python_of(ROOT / "docs" / "testing.md")
    (folder / "conftest.py").write_text((folder / "conftest.py").read_text() + override.text)
    (folder / "test_page.py").write_text(tests.text)
    done = run(folder)
    assert done.returncode == 0, done.stdout
    assert (folder / "never-opened.db").exists()


def test_an_application_below_a_mount(folder: Path) -> None:
    """No lifespan runs there, and the schema is made all the same."""
    (folder / "main.py").write_text(
        APPLICATION + "\nouter = FastAPI()\nouter.mount('/in', app)\nauth.attach(outer)\napp = outer\n"
    )
    (folder / "test_mounted.py").write_text(
        "def test(sign_in_as):\n    assert sign_in_as('ada@example.com').get('/in/me').json() == 'ada@example.com'\n"
    )
    done = run(folder)
    assert done.returncode == 0, done.stdout


def test_what_is_missing_is_said(folder: Path) -> None:
    """No fixture `app`, and an application without an `Auth`."""
    (folder / "test_page.py").write_text("def test(client): ...\n")
    (folder / "conftest.py").write_text('pytest_plugins = ["latchstring.testing"]\n')
    assert "define a fixture `app`" in run(folder).stdout
    (folder / "main.py").write_text("from fastapi import FastAPI\napp = FastAPI()\n")
    conftest, _, _ = python_of(ROOT / "docs" / "testing.md")
    (folder / "conftest.py").write_text(conftest.text)
    assert "no Auth is installed" in run(folder).stdout
