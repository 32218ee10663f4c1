"""A client that is no browser: it signs in at `/token`, and goes on by itself when its access token has expired."""

import asyncio
from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Self

import httpx2


class Bearer(httpx2.Auth):
    """Puts the access token on each request; on 401 it gets the next one, once for all requests that wait, and repeats.

    `httpx2.AsyncClient(auth=await Bearer.sign_in("https://app.example.com/auth/token", "ada@example.com", password))`
    """

    def __init__(self, token_url: str, *, access_token: str, refresh_token: str) -> None:
        self._token_url = token_url
        self._access_token = access_token
        self._refresh_token = refresh_token
        self._turn = asyncio.Lock()

    @classmethod
    async def sign_in(cls, token_url: str, email: str, password: str) -> Self:
        form = {"grant_type": "password", "username": email, "password": password}
        async with httpx2.AsyncClient() as client:
            answer = (await client.post(token_url, data=form)).raise_for_status().json()
        return cls(token_url, access_token=answer["access_token"], refresh_token=answer["refresh_token"])

    async def confirm(self, confirm_url: str, password: str) -> None:
        """Prove again who the user is, for routes that ask for a fresh proof (`insufficient_user_authentication`)."""
        await self._exchange(confirm_url, {"password": password})

    async def change_password(self, change_url: str, *, current: str, new: str) -> None:
        """Change the password. Every session ends, and this client goes on with a new one."""
        await self._exchange(change_url, {"current_password": current, "new_password": new})

    async def _exchange(self, url: str, body: dict[str, str]) -> None:
        async with httpx2.AsyncClient(auth=self) as client:
            answer = (await client.post(url, json=body)).raise_for_status().json()
        # The proof, and after a new password the session, are in these two alone: the ones before are replaced.
        self._access_token, self._refresh_token = answer["access_token"], answer["refresh_token"]

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        used = self._access_token
        request.headers["Authorization"] = f"Bearer {used}"
        answer = yield request
        if answer.status_code != HTTPStatus.UNAUTHORIZED:
            return
        async with self._turn:
            if self._access_token == used:
                form = {"grant_type": "refresh_token", "refresh_token": self._refresh_token}
                renewed = yield httpx2.Request("POST", self._token_url, data=form)
                await renewed.aread()
                # Meanwhile a new password may have brought another session's tokens: those stay.
                if renewed.is_success and self._access_token == used:
                    self._access_token = renewed.json()["access_token"]
                    self._refresh_token = renewed.json()["refresh_token"]
        # Where it could not be renewed, the answer is 401 once more: the session has ended, sign in again.
        request.headers["Authorization"] = f"Bearer {self._access_token}"
        yield request


async def main() -> None:
    """Ask the example `minimal` who it is."""
    bearer = await Bearer.sign_in("http://localhost:8000/auth/token", "ada@example.com", "correct horse battery")
    async with httpx2.AsyncClient(base_url="http://localhost:8000", auth=bearer) as client:
        print((await client.get("/me")).json())


if __name__ == "__main__":
    asyncio.run(main())
