"""A room in which everybody who is signed in hears everybody, and nobody else does."""

import os

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from latchstring import Auth, CurrentUser

app = FastAPI()
auth = Auth("sqlite+aiosqlite:///app.db", secret=os.environ["APP_SECRET"])
auth.install(app, prefix="/auth")
room: set[WebSocket] = set()


@app.websocket("/room")
async def talk(socket: WebSocket, user: CurrentUser) -> None:
    """Who signs out, or is signed out, is told (close code 4401) and leaves the room: here that is a disconnect."""
    await socket.accept()
    room.add(socket)
    try:
        while True:
            words = await socket.receive_text()
            for other in list(room):
                await other.send_text(f"{user.first_name}: {words}")
    except WebSocketDisconnect:
        return
    finally:
        room.discard(socket)
