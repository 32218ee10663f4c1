"""A page that signs in with cookies, and what it asks for. The page is plain JavaScript: `static/`."""

import os
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from latchstring import Auth, CurrentUser, public

app = FastAPI()
auth = Auth("sqlite+aiosqlite:///app.db", secret=os.environ["APP_SECRET"])
auth.install(app, prefix="/auth")


@app.get("/api/greeting")
async def greeting(user: CurrentUser) -> str:
    return f"Hello, {user.first_name}!"


app.mount("/", public(StaticFiles(directory=Path(__file__).parent / "static", html=True)))
