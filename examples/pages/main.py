"""A shop whose sign-in pages look like it: its colours, its logo, its header and footer; and a page for members."""

import os
from html import escape
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from latchstring import Auth, OptionalUser, Pages, PageUser, public

HERE = Path(__file__).parent

app = FastAPI(default_response_class=HTMLResponse)
auth = Auth(
    "sqlite+aiosqlite:///app.db",
    secret=os.environ["APP_SECRET"],
    pages=Pages(
        name="Driftwood",
        logo="/static/logo.svg",
        theme={
            "accent": "light-dark(#0b6e4f, #6fd6ae)",
            "accent-text": "light-dark(#fff, #06281d)",
            "focus": "light-dark(#0b6e4f, #6fd6ae)",
            "radius": "0.25rem",
        },
        landing_page="/orders",
        links=[("Orders", "/orders")],
        templates=HERE / "templates",
    ),
)
auth.install(app, prefix="/auth")
app.mount("/static", public(StaticFiles(directory=HERE / "static")))


@app.get("/")
async def home(user: OptionalUser) -> str:
    way = '<a href="/orders">Your orders</a>' if user else '<a href="/auth/sign-in?next=/orders">Sign in</a>'
    return page("Driftwood", way)


@app.get("/orders")
async def orders(user: PageUser) -> str:
    return page(f"Orders of {escape(user.first_name)}", 'None yet. <a href="/auth/account">Your account</a>')


def page(heading: str, text: str) -> str:
    icon = '<link rel="icon" href="/static/logo.svg">'
    return f'<!doctype html><html lang="en"><title>{heading}</title>{icon}<h1>{heading}</h1><p>{text}</p>'
