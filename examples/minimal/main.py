"""Ten lines to a protected route."""

import os

from fastapi import FastAPI

from latchstring import Auth, CurrentUser

app = FastAPI()
auth = Auth("sqlite+aiosqlite:///app.db", secret=os.environ["APP_SECRET"])
auth.install(app, prefix="/auth")


@app.get("/me")
async def me(user: CurrentUser) -> str:
    return user.email
