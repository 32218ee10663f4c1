"""What a type checker makes of the public names: mypy --strict and pyright agree on every line. Nothing here is run."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, assert_type
from uuid import UUID

from fastapi import Depends, FastAPI, WebSocket
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from starlette.requests import HTTPConnection
from starlette.staticfiles import StaticFiles

from latchstring import (
    Access,
    Auth,
    Caller,
    CallerDep,
    CurrentUser,
    Event,
    GuardMiddleware,
    Inspection,
    OptionalUser,
    RoleGranted,
    SessionCreated,
    SessionEnded,
    Settings,
    User,
    UserRegistered,
    fresh,
    guarding,
    public,
    requires,
)

app = FastAPI()
auth = Auth("sqlite+aiosqlite:///app.db", secret="…")
assert_type(auth, Auth)
assert_type(Auth(create_async_engine("sqlite+aiosqlite:///app.db"), secret="…"), Auth)
assert_type(Auth.from_settings(Settings(), features=[]), Auth)
Auth(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Auth("sqlite:///app.db", secret=b"...")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Auth("sqlite:///app.db", password="…")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

Admin = Annotated[Caller, Depends(requires(role="admin"))]
JustProven = Annotated[Caller, Depends(fresh(minutes=5))]


@app.get("/guarded")
async def guarded(
    user: CurrentUser, visitor: OptionalUser, caller: CallerDep, admin: Admin, proven: JustProven
) -> None:
    assert_type(user, User)
    assert_type(user.email, str)
    assert_type(user.roles, tuple[str, ...])
    assert_type(visitor, User | None)
    str(visitor.email)  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    for each in (caller, admin, proven):
        assert_type(each, Caller)
    assert_type(caller.user_id, UUID)
    assert_type(caller.proven_at, datetime)
    assert_type(caller.claims, Mapping[str, Any])
    caller.user_id = UUID(int=7)  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


@app.websocket("/socket")
async def socket(socket: WebSocket, caller: CallerDep) -> None:
    assert_type(caller, Caller)


@app.get("/bound")
async def bound(user: Annotated[User, Depends(auth.current_user)]) -> str:
    return user.email


assert_type(requires(role="admin"), Callable[[HTTPConnection], Awaitable[Caller]])
assert_type(auth.requires(role="admin"), Callable[[HTTPConnection], Awaitable[Caller]])
assert_type(auth.fresh(minutes=5), Callable[[HTTPConnection], Awaitable[Caller]])
requires("admin")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


@auth.inside(UserRegistered)
async def make_profile(event: UserRegistered, connection: AsyncConnection) -> None:
    assert_type(event.user_id, UUID)
    assert_type(event.email, str)


@auth.after(SessionEnded)
async def note(event: SessionEnded) -> None:
    assert_type(event.reason, str)


@auth.after(Event)
async def note_all(event: Event) -> None:
    assert_type(event.at, datetime)


@auth.inside(SessionEnded)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
async def joins_an_end(event: SessionEnded, connection: AsyncConnection) -> None: ...


@auth.after(SessionCreated)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def hears_another(event: RoleGranted) -> None: ...


@auth.after(SessionCreated)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
def blocks(event: SessionCreated) -> None: ...


async def claims(user: User) -> dict[str, int]:
    return {"shop:tenant": len(user.email)}


async def no_claims(user: User) -> None: ...


assert_type(Auth("sqlite:///app.db", secret="…", claims=claims), Auth)
Auth("sqlite:///app.db", secret="…", claims=no_claims)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@app.get("/open")
@public
async def everybody() -> int:
    return 7


@guarding
def require_key(key: str) -> bool:
    return bool(key)


assert_type(require_key("…"), bool)
assert_type(auth.protect(StaticFiles(directory=".")), GuardMiddleware)


async def operate(user_id: UUID) -> None:
    assert_type(await auth.audit(app), Inspection)
    assert_type((await auth.audit(app)).routes[0].access, Access)
    assert_type(await auth.users.grant_role(user_id, "editor"), User | None)
    assert_type(await auth.users.get(user_id), User | None)
    assert_type(await auth.drained(), None)
    assert_type(await everybody(), int)
