"""No request fills a name of ours, wherever it stands in a route's signature (SECURITY.md, property 22).

Every public name is put into every position. What it must do there follows from what it is, so that a new name is
tested from the day it is exported.
"""

import contextlib
import dataclasses
import inspect
import json
import re
from collections.abc import AsyncIterator, Callable, MutableMapping
from dataclasses import dataclass
from enum import StrEnum
from types import GenericAlias
from typing import Annotated, Any, Optional, Union, get_origin
from urllib.parse import urlencode
from uuid import UUID

import pytest
from fastapi import APIRouter, Body, Depends, FastAPI, Query, WebSocket
from pydantic import BaseModel, PydanticSchemaGenerationError, TypeAdapter, ValidationError, create_model
from typing_extensions import TypedDict

import latchstring
import latchstring.verifier
from latchstring import (
    Access,
    Auth,
    Caller,
    CallerDep,
    ConfigurationError,
    CurrentUser,
    Event,
    Settings,
    User,
    current_user,
    fresh,
    on_page,
    requires,
)
from latchstring.annotations import InstanceOnly
from latchstring.foundation.web.dependency import SecurityDependency
from latchstring.inspection import inspected_routes
from latchstring.testing import ManualClock
from latchstring.verifier import TokenVerifier
from tests.support.backends import ON_SQLITE
from tests.support.host import Host, browser_for
from tests.support.service import SECRET

BOSS = {
    "id": "00000000-0000-4000-8000-000000000001",
    "email": "boss@example.com",
    "first_name": "The",
    "last_name": "Boss",
    "created_at": "2026-01-01T00:00:00Z",
    "email_verified": True,
    "disabled_at": None,
    "security_version": 1,
    "claims_version": 1,
    "roles": ["admin"],
}
OTHERS = {
    "user_id": "00000000-0000-4000-8000-000000000001",
    "session_id": "00000000-0000-4000-8000-000000000002",
    "epoch": 0,
    "methods": ["pwd"],
    "proven_at_unix": 1,
    "issued_at_unix": 1,
    "expires_at_unix": 4_102_444_800,
    "at": "2026-01-01T00:00:00Z",
    "source": {"actor": "operator"},
    "actor": "operator",
    "kid": "k",
    "method": "pwd",
    "reason": "logout",
    "role": "admin",
    "secret_id": "s",
}
FIELDS = BOSS | OTHERS
"""Of every value: Pydantic leaves out those that a dataclass does not have."""
WORDS = {"minutes": 5, "dependency": "x", "issuer": "https://evil.example", "value": "x"}
QUERY = urlencode({name: value for name, value in (FIELDS | WORDS).items() if isinstance(value, str | int)})

# --- the names --------------------------------------------------------------------------------------------------------


class Kind(StrEnum):
    ALIAS = "an annotation: CurrentUser"
    GUARD = "a dependency: current_user, fresh(minutes=5)"
    FACTORY = "makes a dependency when it is called: fresh"
    VALUE = "a value: User"
    OTHER = "nothing that FastAPI can read: Auth"


ORDINARY = {
    "Access": "a word",
    "Code": "a word, which a client reads from our refusals",
    "Settings": "what an application reads from its own configuration",
    "Feature": "a protocol",
    "PasswordFeature": "an object that knows nobody",
    "ProfileFeature": "an object that knows nobody",
    "RevocationFeedFeature": "an object that knows nobody",
    "RefusedError": "an exception with a word in it",
    "alembic_include_name": "a function for Alembic",
    "guarding": "a decorator",
    "public": "a decorator",
}
"""What a visitor may fill, or call, like anything of an application's own: it says nothing of who is asking."""


def names(auth: Auth) -> dict[str, Any]:
    """Returns all that is public, and what it is."""
    found = {name: getattr(latchstring, name) for name in latchstring.__all__}
    found |= {f"verifier.{name}": getattr(latchstring.verifier, name) for name in latchstring.verifier.__all__}
    dependency = inspect.signature(fresh).return_annotation
    for name in dir(auth):
        value = getattr(auth, name)
        makes_one = inspect.ismethod(value) and inspect.signature(value).return_annotation == dependency
        if makes_one or isinstance(value, SecurityDependency):
            found[f"auth.{name}"] = value
    return found | {
        "fresh(…)": fresh(minutes=5),
        "requires(…)": requires(role="admin"),
        "auth.fresh(…)": auth.fresh(minutes=5),
        "auth.requires(…)": auth.requires(role="admin"),
        "on_page(…)": on_page(current_user),
        "TokenVerifier(…)": TokenVerifier(issuer="https://auth.example.com"),
    }


# Nothing is read of a visitor who has no token.
AUTH = Auth("sqlite:///never-opened.db", secret=SECRET, pages=True)
# So that its pages are somewhere: a guard of pages redirects to them.
AUTH.install(FastAPI())
NAMES = {name: value for name, value in names(AUTH).items() if name not in ORDINARY}


def kind_of(value: object) -> Kind:
    if get_origin(value) is Annotated:
        return Kind.ALIAS
    if isinstance(value, SecurityDependency):
        return Kind.GUARD
    if inspect.isroutine(value) or value is TokenVerifier:
        return Kind.FACTORY
    return Kind.VALUE if inspect.isclass(value) and issubclass(value, InstanceOnly) else Kind.OTHER


# --- the positions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Position:
    declare: Callable[[FastAPI, object, list[object]], None]
    """Adds `/` to an application, with a name in its signature; what its parameter gets goes to the list."""
    body: object
    """What fills the parameter, were there a value of somebody else's."""


POSITIONS: dict[str, Position] = {}


def parameter(
    written: str,
    annotation_of: Callable[[Any], Any],
    default_of: Callable[[Any], Any] = lambda _: inspect.Parameter.empty,
    *,
    body: object = FIELDS,
    everywhere: bool = False,
) -> None:
    """Adds a parameter of a route; and of a dependency, of a class that is one, and of a WebSocket."""

    def seeing(seen: list[object], value: object) -> Callable[..., None]:
        def function(**given: object) -> None:
            seen.extend(given.values())

        keyword_only = inspect.Parameter.KEYWORD_ONLY
        own = inspect.Parameter("value", keyword_only, annotation=annotation_of(value), default=default_of(value))
        function.__signature__ = inspect.Signature([own])  # type: ignore[attr-defined]  # what `inspect` reads
        return function

    def of_route(app: FastAPI, value: object, seen: list[object]) -> None:
        app.post("/")(seeing(seen, value))

    def of_dependency(app: FastAPI, value: object, seen: list[object]) -> None:
        app.post("/", dependencies=[Depends(seeing(seen, value))])(lambda: None)

    def of_class(app: FastAPI, value: object, seen: list[object]) -> None:
        function = seeing(seen, value)

        class Dependency:
            __signature__ = inspect.signature(function)

            def __init__(self, **given: object) -> None:
                function(**given)

        app.post("/", dependencies=[Depends(Dependency)])(lambda: None)

    def of_websocket(app: FastAPI, value: object, seen: list[object]) -> None:
        app.websocket("/", dependencies=[Depends(seeing(seen, value))])(accepted)

    POSITIONS[written] = Position(of_route, body)
    if everywhere:
        POSITIONS[f"{written}, of a dependency"] = Position(of_dependency, body)
        POSITIONS[f"{written}, of a class"] = Position(of_class, body)
        POSITIONS[f"{written}, of a WebSocket"] = Position(of_websocket, body)


def postponed(written: str) -> None:
    """Adds a parameter in a module whose annotations are text until FastAPI reads them."""

    def declare(app: FastAPI, value: object, seen: list[object]) -> None:
        source = f"from __future__ import annotations\ndef route({written}): seen.append(value)"
        module: dict[str, Any] = {"X": value, "Optional": Optional, "seen": seen}
        exec(source, module)  # noqa: S102 -- two lines above
        app.post("/")(module["route"])

    POSITIONS[f"{written}, postponed"] = Position(declare, FIELDS)


def field(written: str, model_of: Callable[[Any], Any], *, body: object) -> None:
    """Adds a field of the model of a body."""

    def declare(app: FastAPI, value: object, seen: list[object]) -> None:
        model = model_of(value)

        def route(given: model) -> None:  # type: ignore[valid-type]  # made at run time
            seen.append(given)

        app.post("/")(route)

    POSITIONS[written] = Position(declare, body)


def dependencies(written: str, dependency_of: Callable[[Any], Any]) -> None:
    """Adds what stands among the dependencies of a route, of a router and of a WebSocket."""

    def of_route(app: FastAPI, value: object, _seen: list[object]) -> None:
        app.post("/", dependencies=[dependency_of(value)])(lambda: None)

    def of_router(app: FastAPI, value: object, _seen: list[object]) -> None:
        router = APIRouter(dependencies=[dependency_of(value)])
        router.post("/")(lambda: None)
        app.include_router(router)

    def of_websocket(app: FastAPI, value: object, _seen: list[object]) -> None:
        app.websocket("/", dependencies=[dependency_of(value)])(accepted)

    POSITIONS[f"{written}, of a route"] = Position(of_route, FIELDS)
    POSITIONS[f"{written}, of a router"] = Position(of_router, FIELDS)
    POSITIONS[f"{written}, of a WebSocket"] = Position(of_websocket, FIELDS)


async def accepted(socket: WebSocket) -> None:
    await socket.accept()


def optional(annotation: object) -> object:
    return Optional[annotation]  # noqa: UP045 -- Python itself refuses `fresh | None`; this one reaches FastAPI


def same(value: object) -> object:
    return value


def none(_: object) -> None:
    return None


def unwritten(_: object) -> object:
    return inspect.Parameter.empty


def model(annotation: object) -> type[BaseModel]:
    return create_model("Model", value=(annotation, ...))  # type: ignore[arg-type]  # any object, as it comes


def group() -> frozenset[str]:
    """Returns the positions added since the last group."""
    return frozenset(POSITIONS.keys() - {name for names in GROUPS for name in names})


GROUPS: list[frozenset[str]] = []

parameter("value: X", same, everywhere=True)
parameter("value: X = None", same, none)
parameter("value: X = Body(None)", same, lambda _: Body(None))
parameter("value: Annotated[X, …]", lambda x: Annotated[x, "words"])
postponed("value: X")
ALONE = group()
GROUPS.append(ALONE)

parameter("value: Optional[X] = None", optional, none, everywhere=True)
parameter("value: X | None = None", lambda x: x | None, none)
parameter("value: Union[X, int]", lambda x: Union[x, int])  # noqa: UP007 -- as `optional`
parameter("value: list[X]", lambda x: GenericAlias(list, (x,)), body=[FIELDS])
parameter("value: dict[str, X]", lambda x: GenericAlias(dict, (str, x)), body={"value": FIELDS})
parameter("value: Annotated[X, Body()]", lambda x: Annotated[x, Body()])
parameter("value: Annotated[Optional[X], …] = None", lambda x: Annotated[optional(x), "words"], none)
postponed("value: Optional[X] = None")
field("a field of a model", model, body={"value": FIELDS})
field("a field of a model, Optional[X]", lambda x: model(optional(x)), body={"value": FIELDS})
field("a field of a model, list[X]", lambda x: model(GenericAlias(list, (x,))), body={"value": [FIELDS]})
field("a field of a model in a model", lambda x: model(model(x)), body={"value": {"value": FIELDS}})
field("a field of a dataclass", lambda x: dataclasses.make_dataclass("Data", [("value", x)]), body={"value": FIELDS})
field("a field of a TypedDict", lambda x: TypedDict("Typed", {"value": x}), body={"value": FIELDS})  # type: ignore[operator]  # made at run time
INSIDE = group()
GROUPS.append(INSIDE)

parameter("value: Annotated[X, Query()]", lambda x: Annotated[x, Query()])
QUERIED = group()
GROUPS.append(QUERIED)

parameter("value: Annotated[X, Depends()]", lambda x: Annotated[x, Depends()], body=["admin"])
parameter("value: X = Depends()", same, lambda _: Depends(), body=["admin"])
SHORT = group()
GROUPS.append(SHORT)

parameter("value=Depends(X)", unwritten, Depends, everywhere=True, body=["admin"])
dependencies("dependencies=[Depends(X)]", Depends)
CALLED = group()
GROUPS.append(CALLED)

dependencies("dependencies=[X]", same)
parameter("value: Annotated[User, X]", lambda x: Annotated[User, x])
parameter("value: User = X", lambda _: User, same)
parameter("value=X", unwritten, same, everywhere=True)
FORGOTTEN = group()
"""Positions of a dependency whose `Depends` was forgotten."""
DEFAULT = frozenset(each for each in FORGOTTEN if each.startswith(("value: User = X", "value=X")))

# --- what must come of it ---------------------------------------------------------------------------------------------


class Outcome(StrEnum):
    RUNS = "the guard is asked"
    REFUSED = "the route, or the model, can't be declared"
    NEVER = "nothing that is sent fills it"
    UNSEEN = "an ordinary default value, at which FastAPI does not look: the doctor calls the route undeclared"


def expected(value: object, position: str) -> Outcome:
    kind = kind_of(value)
    if (kind is Kind.ALIAS and position in ALONE) or (kind is Kind.GUARD and position in SHORT | CALLED | FORGOTTEN):
        return Outcome.RUNS
    if position in DEFAULT:
        return Outcome.UNSEEN
    if position == "value: Annotated[User, X]":
        # Pydantic asks what stands beside a type, and can ask no class whose instances answer.
        return Outcome.REFUSED if value is TokenVerifier else Outcome.NEVER
    if kind is Kind.ALIAS and position in CALLED:
        return Outcome.NEVER
    return Outcome.NEVER if kind is Kind.VALUE and position in ALONE | INSIDE else Outcome.REFUSED


SENTENCES = {
    Kind.ALIAS: r"OptionalUser",
    Kind.GUARD: r"OptionalUser|verify\(token\)",
    Kind.FACTORY: r"^(fresh|requires|on_page|TokenVerifier) is missing its call: write .*Depends\(",
    Kind.VALUE: r"OptionalUser",
}
"""What a refusal of ours says."""


def sentence_is_ours(value: object, position: str) -> bool:
    """Tells whether the sentence must be ours; in a few positions FastAPI or Python refuses first."""
    kind = kind_of(value)
    if value is TokenVerifier:
        return position in SHORT | CALLED
    if kind is Kind.OTHER or position.startswith(("dependencies=[X]", "value: Annotated[X, Query()]")):
        return False
    if position == "value: X | None = None" and kind not in {Kind.ALIAS, Kind.VALUE}:
        return False
    return kind is not Kind.ALIAS or position not in SHORT


async def outcome_of(value: object, position: str) -> Outcome:
    kind, seen = kind_of(value), list[object]()
    try:
        app = declared(AUTH, value, position, seen)
    except Exception as refused:  # noqa: BLE001 -- each of FastAPI, Pydantic and Python has errors of its own
        is_ours = isinstance(refused, ConfigurationError) and re.search(SENTENCES[kind], str(refused))
        if not is_ours and sentence_is_ours(value, position):
            pytest.fail(f"{position}: {refused!r}")
        return Outcome.REFUSED
    is_socket = position.endswith("of a WebSocket")
    body = POSITIONS[position].body
    statuses = {
        await status_of(app, is_socket=is_socket),
        await status_of(app, is_socket=is_socket, query=QUERY, body=body),
    }
    (access,) = {route.access for route in inspected_routes(app)}
    if statuses <= {401, 303}:
        assert not seen
        return Outcome.RUNS
    if position in DEFAULT and kind is not Kind.GUARD:
        assert access is Access.UNDECLARED
        return Outcome.UNSEEN
    assert set(seen) <= {None}, position
    if access is Access.PUBLIC:
        assert statuses <= {200, 101}
        return Outcome.RUNS
    assert access is Access.UNDECLARED
    assert seen or not statuses & {200, 101}, position
    return Outcome.NEVER


async def status_of(
    app: FastAPI, *, is_socket: bool, query: str = "", body: object = None, token: str | None = None
) -> int:
    """Returns the status of a POST, or of a handshake: 101 where it is accepted."""
    headers = [(b"host", b"localhost:9000"), (b"content-type", b"application/json")]
    if token is not None:
        headers.append((b"authorization", f"Bearer {token}".encode()))
    scope: dict[str, Any] = {
        "type": "websocket" if is_socket else "http",
        "method": "POST",
        "path": "/",
        "query_string": query.encode(),
        "headers": headers,
        "extensions": {"websocket.http.response": {}},
    }
    content = b"" if body is None else json.dumps(body).encode()
    statuses: list[int] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "websocket.connect"} if is_socket else {"type": "http.request", "body": content}

    async def send(message: MutableMapping[str, Any]) -> None:
        statuses.append(message.get("status", 101 if message["type"] == "websocket.accept" else 403))

    # Whatever breaks in a route is 500: a server says so of a handshake, and Starlette of a request.
    with contextlib.suppress(Exception):
        await app(scope, receive, send)
    return statuses[0] if statuses else 500


def declared(auth: Auth, value: object, position: str, seen: list[object]) -> FastAPI:
    """Returns an application whose only route has the value in this position."""
    app = FastAPI(openapi_url=None)
    auth.attach(app)
    POSITIONS[position].declare(app, value, seen)
    return app


@pytest.mark.parametrize("name", NAMES)
async def test_no_visitor_fills_it(name: str) -> None:
    """F1 and F2, every name in every position; and where no guard is asked, the doctor does not say that one is."""
    value = NAMES[name]
    is_event = inspect.isclass(value) and issubclass(value, Event) and value is not Event
    # What an event does it has from `Event`, which goes everywhere.
    positions = ["value: X", "value: Optional[X] = None", "value=Depends(X)", "a field of a model"]
    positions = positions if is_event else list(POSITIONS)
    outcomes = {position: await outcome_of(value, position) for position in positions}
    assert outcomes == {position: expected(value, position) for position in positions}


def test_every_name_has_a_kind() -> None:
    """A value that Pydantic could build is `InstanceOnly`, and what is excused from the table is still there."""
    found = names(AUTH)
    assert found.keys() >= ORDINARY.keys()
    for name, value in found.items():
        if kind_of(value) is Kind.OTHER and name not in ORDINARY and inspect.isclass(value):
            with pytest.raises(PydanticSchemaGenerationError):
                TypeAdapter(value)


@ON_SQLITE
async def test_who_is_signed_in_comes_through(settings: Settings, clock: ManualClock) -> None:
    """Where the table says that a guard runs, it gives the route who is asking."""
    host = Host(settings, clock)
    async with host.auth.running():
        browser = await host.signed_in()
        user_id = UUID((await browser.get("/auth/me")).json()["id"])
        await host.auth.users.grant_role(user_id, "admin")
        await browser.post("/auth/refresh")
        token = browser.cookies["access_token"]
        for name, value in names(host.auth).items():
            running = [each for each in POSITIONS if expected(value, each) is Outcome.RUNS]
            for position in [] if name == "TokenVerifier(…)" else running:
                seen: list[Any] = []
                app = declared(host.auth, value, position, seen)
                status = await status_of(app, is_socket=position.endswith("of a WebSocket"), token=token)
                assert status in {200, 101}, (name, position)
                assert [getattr(each, "user_id", None) or each.id for each in seen] in ([user_id], []), (name, position)
                assert seen or position.startswith("dependencies"), (name, position)


async def test_an_optional_current_user() -> None:
    """F1: FastAPI read the user from the body, and `POST` with the boss's fields came in as the boss."""
    app = FastAPI()
    with pytest.raises(ConfigurationError, match="OptionalUser"):

        @app.post("/a")
        async def route(user: CurrentUser | None = None) -> str:
            return user.email if user else "nobody"

    @app.post("/b")
    async def bare(user: User | None = None) -> str:
        return user.email if user else "nobody"

    async with browser_for(app) as browser:
        assert (await browser.post("/b", json=BOSS)).status_code == 422
        assert (await browser.post("/b")).json() == "nobody"


@pytest.mark.parametrize(
    "factory",
    [fresh, requires, AUTH.fresh, AUTH.requires, on_page],
    ids=["fresh", "requires", "auth.fresh", "auth.requires", "on_page"],
)
def test_a_forgotten_call(factory: Callable[..., Any]) -> None:
    """F2: `Depends(fresh)` let everybody in who sent `?minutes=5`."""
    app = FastAPI()
    with pytest.raises(ConfigurationError, match=rf"^{factory.__name__} is missing its call: write Depends\("):

        @app.get("/f", dependencies=[Depends(factory)])
        async def route() -> None: ...

    assert inspect.signature(fresh).parameters.keys() == {"minutes"}


class Team(BaseModel):
    lead: User
    members: list[User]


@ON_SQLITE
async def test_values_are_returned_as_they_were(host: Host) -> None:
    """As the answer of a route, inside a model, and in its document; sent as a body, the same model is 422."""

    @host.app.get("/user")
    async def one(user: CurrentUser) -> User:
        return user

    @host.app.get("/users")
    async def many(user: CurrentUser) -> list[User]:
        return [user]

    @host.app.get("/caller")
    async def who(caller: CallerDep) -> Caller:
        return caller

    @host.app.get("/team")
    async def team(user: CurrentUser) -> Team:
        return Team(lead=user, members=[user])

    @host.app.post("/team")
    async def form(team: Team) -> str:
        return team.lead.email

    browser = await host.signed_in()
    user = (await browser.get("/user")).json()
    assert user["email"] == "ada@example.com"
    assert user.keys() == {each.name for each in dataclasses.fields(User)}
    assert (await browser.get("/users")).json() == [user]
    assert (await browser.get("/team")).json() == {"lead": user, "members": [user]}
    assert (await browser.get("/caller")).json()["user_id"] == user["id"]
    refused = await browser.post("/team", json={"lead": user, "members": [user]})
    assert refused.status_code == 422
    assert refused.json()["detail"][0]["msg"] == "a request can't contain a User"
    with pytest.raises(ValidationError):
        TypeAdapter(User).validate_json(json.dumps(BOSS))
    schemas = host.app.openapi()["components"]["schemas"]
    assert schemas["User"]["properties"].keys() == user.keys()
    assert schemas["Caller"]["properties"].keys() == {each.name for each in dataclasses.fields(Caller)}


@pytest.fixture
async def host(settings: Settings, clock: ManualClock) -> AsyncIterator[Host]:
    host = Host(settings, clock)
    async with host.auth.running():
        yield host
