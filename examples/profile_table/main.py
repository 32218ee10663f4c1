"""Your own fields of a user: in a table of yours, written with the user or not at all, and read with one join."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import UUID

import sqlalchemy as sa
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from latchstring import Auth, CallerDep, UserRegistered, users

metadata = sa.MetaData()
profiles = sa.Table(
    "profiles",
    metadata,
    # When a user is deleted, so is this.
    sa.Column("user_id", sa.Uuid(), sa.ForeignKey(users.c.id, ondelete="CASCADE"), primary_key=True),
    sa.Column("city", sa.String(80), nullable=False),
)
engine = create_async_engine(os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///app.db"))
auth = Auth(engine, secret=os.environ["APP_SECRET"])


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncGenerator[None, None]:
    """Our own table; an application that grows uses Alembic, beside the library's."""
    async with engine.begin() as connection:
        await connection.run_sync(lambda sync: profiles.create(sync, checkfirst=True))
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)
auth.install(app, prefix="/auth")


@auth.inside(UserRegistered)
async def make_profile(event: UserRegistered, connection: AsyncConnection) -> None:
    """In the transaction that creates the user: there is no user without a profile."""
    await connection.execute(profiles.insert().values(user_id=event.user_id, city="somewhere"))


class Profile(BaseModel):
    email: str
    city: str


@app.get("/profile")
async def read_profile(caller: CallerDep) -> Profile:
    return await _profile(caller.user_id)


@app.put("/profile/city")
async def move(city: str, caller: CallerDep) -> Profile:
    async with engine.begin() as connection:
        await connection.execute(profiles.update().where(profiles.c.user_id == caller.user_id).values(city=city))
    return await _profile(caller.user_id)


async def _profile(user_id: UUID) -> Profile:
    question = sa.select(users.c.email, profiles.c.city).join_from(users, profiles).where(users.c.id == user_id)
    async with engine.connect() as connection:
        row = (await connection.execute(question)).one()
    return Profile(email=row.email, city=row.city)
