"""The least that a FastAPI application is: one route. What ours costs is counted from here."""

from fastapi import FastAPI

app = FastAPI()


@app.get("/api/dashboard")
async def get_dashboard() -> dict[str, str]:
    return {"message": "Hello from the dashboard!"}
