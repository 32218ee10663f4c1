"""The OpenAPI document: of the server as it is kept in docs/openapi.json, and of a host's own application."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from fastapi import Depends, FastAPI

from latchstring import Auth, Settings, current_caller
from latchstring.testing import ManualClock
from tests.core.guard.test_dependencies import add_routes
from tests.support.folders import ROOT
from tests.support.host import Host
from tests.support.process import latchstring

DOCUMENT = ROOT / "docs" / "openapi.json"


def test_the_servers_document_is_the_one_that_is_kept(tmp_path: Path) -> None:
    """A change of what clients were promised shows in the diff: `latchstring openapi > docs/openapi.json`."""
    printed = json.loads(latchstring("openapi", cwd=tmp_path).stdout)
    assert printed == json.loads(DOCUMENT.read_text())


def test_bodies_and_answers_have_examples_that_are_ones() -> None:
    """Of each model that a request or a success refers to, valid by its own schema."""
    document = json.loads(DOCUMENT.read_text())
    schemas = document["components"]["schemas"]
    shown = set()
    for operation in (each for item in document["paths"].values() for each in item.values()):
        contents = [operation.get("requestBody", {}).get("content", {})]
        contents += [answer.get("content", {}) for status, answer in operation["responses"].items() if status < "300"]
        text = json.dumps(contents)
        shown |= {name for name in schemas if f'"#/components/schemas/{name}"' in text}
    shown -= {"Health", "Readiness", "Greeting", "SignedOutResponse"}  # which say it all
    assert {"UserResponse", "Registration", "TokenResponse", "SessionResponse", "FeedPageResponse"} <= shown
    for name in shown:
        for example in schemas[name]["examples"]:
            schema = schemas[name] | {"components": {"schemas": schemas}}
            jsonschema_rs.validate(schema, example, validate_formats=True)


def test_a_document_that_the_host_made(tmp_path: Path) -> None:
    """OpenAPI lets an item have words and extensions beside its methods, and an operation no responses."""
    app = FastAPI()

    def own() -> dict[str, Any]:
        return {"paths": {"/me": {"summary": "…", "x-gateway": {"a": 1}, "get": {"summary": "…"}}}}

    app.openapi = own  # type: ignore[method-assign]  # as FastAPI documents it
    Auth(f"sqlite:///{tmp_path}/app.db", secret="x" * 32).install(app)
    app.get("/me", dependencies=[Depends(current_caller)])(lambda: "in")
    made = app.openapi()
    assert made["paths"]["/me"]["x-gateway"] == {"a": 1}
    assert made["paths"]["/me"]["get"]["responses"].keys() == {"400", "401", "403", "404", "503"}


def test_a_host_that_documents_problems_of_its_own(tmp_path: Path) -> None:
    """They stay as it says them: ours name their schema in another way."""
    own: dict[int | str, dict[str, Any]] = {
        409: {"description": "Taken", "content": {"application/problem+json": {"schema": {"type": "object"}}}},
        410: {"description": "Gone", "content": {"application/problem+json": {"schema": {"type": "object"}}}},
    }
    own[409]["content"]["application/json"] = {"schema": {"type": "string"}}
    app = FastAPI()
    app.get("/own", responses=own)(lambda: "in")
    before = deepcopy(app.openapi()["paths"]["/own"])
    app.openapi_schema = None
    Auth(f"sqlite:///{tmp_path}/app.db", secret="x" * 32).install(app)
    assert app.openapi()["paths"]["/own"] == before


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    """Of a host with routes of its own."""
    host = Host(Settings.model_validate({"secret": "x" * 32, "database_url": "sqlite:///never.db"}), ManualClock())
    add_routes(host.app)
    found: dict[str, Any] = host.app.openapi()
    assert host.app.openapi() is found, "made once"
    return found


def test_a_hosts_document_says_how_a_token_is_carried(document: dict[str, Any]) -> None:
    """Bearer token or cookie on what is guarded; the same or nothing on what is open to visitors; nothing elsewhere."""
    schemes = document["components"]["securitySchemes"]
    kinds = {name: scheme["type"] for name, scheme in schemes.items()}
    assert kinds == {"accessToken": "http", "signIn": "oauth2", "accessCookie": "apiKey", "feedToken": "http"}
    assert schemes["accessCookie"]["name"] == "access_token"
    assert schemes["signIn"]["flows"] == {"password": {"tokenUrl": "auth/token", "scopes": {}}}
    ways_in: list[dict[str, list[str]]] = [{"accessToken": []}, {"signIn": []}, {"accessCookie": []}]
    paths = document["paths"]
    for path in ("/reports", "/profile", "/admin", "/plain", "/just-proven", "/auth/me"):
        assert paths[path]["get"]["security"] == ways_in, path
    assert paths["/visitor"]["get"]["security"] == [{}, *ways_in]
    assert "security" not in paths["/open"]["get"]
    assert "security" not in paths["/auth/login"]["post"]


def test_a_hosts_document_says_what_a_guard_refuses_with(document: dict[str, Any]) -> None:
    """On each guarded route of the host, beside what it says itself, code by code; our own routes say it themselves."""

    def told(path: str) -> dict[str, set[str]]:
        responses = document["paths"][path]["get"]["responses"]
        return {
            status: set(answer["content"]["application/json"].get("examples", {}))
            for status, answer in responses.items()
        }

    reports = told("/reports")
    assert reports.keys() == {"200", "400", "401", "403", "404", "503"}
    assert reports["401"] == {"claims_changed", "invalid_token", "missing_token", "session_ended", "token_expired"}
    assert told("/profile")["503"] == reports["503"] | {"database_unavailable"}
    assert told("/admin")["403"] == reports["403"] | {"role_required"}
    assert told("/just-proven")["401"] == reports["401"] | {"insufficient_user_authentication"}
    assert told("/visitor").keys() == {"200", "400", "403", "503"}
    assert told("/open").keys() == {"200"}
    example = document["paths"]["/reports"]["get"]["responses"]["401"]["content"]["application/json"]["examples"]
    assert example["missing_token"]["value"] == {"detail": "You must refresh"}
    ours = document["paths"]["/auth/me"]["get"]["responses"]["401"]["content"]
    assert ours.keys() == {"application/problem+json"}
    assert "claims_changed" in ours["application/problem+json"]["examples"]
