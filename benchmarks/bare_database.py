"""The least work that login and refresh are made of, as a careful programmer would write it: no password is hashed,
nothing is verified, and no session can be revoked.

    POST /login     one user read, one insert committed, two RS256 signatures
    POST /refresh   one update committed, two RS256 signatures

Driver, pragmas, signing library and key size are ours.
"""

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import Cookie, FastAPI, HTTPException, Response
from joserfc import jwt
from joserfc.jwk import RSAKey
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import create_async_engine

ACCESS_LIFETIME = timedelta(minutes=15)
REFRESH_LIFETIME = timedelta(minutes=60)

metadata = sa.MetaData()
users = sa.Table(
    "bare_users",
    metadata,
    sa.Column("id", sa.Uuid(), primary_key=True),
    sa.Column("email", sa.String(254), nullable=False, unique=True),
    sa.Column("first_name", sa.String(100), nullable=False),
    sa.Column("last_name", sa.String(100), nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
)
sessions = sa.Table(
    "bare_sessions",
    metadata,
    sa.Column("id", sa.Uuid(), primary_key=True),
    sa.Column("user_id", sa.Uuid(), nullable=False, index=True),
    sa.Column("generation", sa.Integer(), nullable=False),
    sa.Column("rotated_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
)

key = RSAKey.generate_key(3072)
engine = create_async_engine(os.environ["BARE_DATABASE_URL"])
is_sqlite = engine.dialect.name == "sqlite"
# SQLite has one writer: waiting in line here is faster than its own busy handler.
writer = asyncio.Lock() if is_sqlite else contextlib.nullcontext()

if is_sqlite:

    @sa.event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: object) -> None:  # noqa: ANN401 -- the driver's own, untyped
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("busy_timeout=5000", "journal_mode=WAL", "foreign_keys=ON", "synchronous=FULL"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine.sync_engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


class Credentials(BaseModel):
    email: str
    password: str


class User(BaseModel):
    id: uuid.UUID
    first_name: str
    last_name: str
    email: str
    created_at: datetime


@contextlib.asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        await connection.execute(
            users.insert().values(
                id=uuid.uuid4(),
                email="ada@example.com",
                first_name="Ada",
                last_name="Lovelace",
                created_at=datetime.now(UTC),
            )
        )
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)

find_user = sa.select(users).where(users.c.email == sa.bindparam("wanted"))
rotate = (
    sessions.update()
    .where(sessions.c.id == sa.bindparam("wanted"))
    .values(
        generation=sessions.c.generation + 1,
        rotated_at=sa.bindparam("now"),
        expires_at=sa.bindparam("expiry"),
    )
    .returning(sessions.c.user_id, sessions.c.generation)
)


@app.get("/ready")
async def get_ready() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/login")
async def login(credentials: Credentials, response: Response) -> User:
    now = datetime.now(UTC)
    session_id = uuid.uuid4()
    async with writer, engine.begin() as connection:
        user = (await connection.execute(find_user, {"wanted": credentials.email})).one_or_none()
        if user is None:
            raise HTTPException(400)
        await connection.execute(
            sessions.insert(),
            {
                "id": session_id,
                "user_id": user.id,
                "generation": 1,
                "rotated_at": now,
                "expires_at": now + REFRESH_LIFETIME,
            },
        )
    set_cookies(response, user.id, session_id, generation=1, now=now)
    return User.model_validate(user, from_attributes=True)


@app.post("/refresh")
async def refresh(session_id: Annotated[uuid.UUID, Cookie()], response: Response) -> dict[str, str]:
    now = datetime.now(UTC)
    async with writer, engine.begin() as connection:
        rotated = await connection.execute(rotate, {"wanted": session_id, "now": now, "expiry": now + REFRESH_LIFETIME})
        session = rotated.one_or_none()
    if session is None:
        raise HTTPException(401)
    set_cookies(response, session.user_id, session_id, generation=session.generation, now=now)
    return {"status": "success"}


def set_cookies(
    response: Response, user_id: uuid.UUID, session_id: uuid.UUID, *, generation: int, now: datetime
) -> None:
    for kind, lifetime in (("access", ACCESS_LIFETIME), ("refresh", REFRESH_LIFETIME)):
        token = signed(kind, user_id, session_id, generation=generation, now=now, lifetime=lifetime)
        response.set_cookie(
            f"{kind}_token", token, max_age=int(lifetime.total_seconds()), httponly=True, samesite="lax"
        )
    response.set_cookie("session_id", str(session_id), httponly=True, samesite="lax")


def signed(
    kind: str, user_id: uuid.UUID, session_id: uuid.UUID, *, generation: int, now: datetime, lifetime: timedelta
) -> str:
    issued_at = int(now.timestamp())
    claims = {
        "iss": "bare",
        "aud": "bare",
        "sub": str(user_id),
        "sid": str(session_id),
        "iat": issued_at,
        "nbf": issued_at,
        "exp": issued_at + int(lifetime.total_seconds()),
        "jti": str(uuid.uuid4()),
        "type": kind,
        "gen": generation,
    }
    return jwt.encode({"alg": "RS256", "typ": "JWT", "kid": "bare"}, claims, key, algorithms=["RS256"])
