"""TokenVerifier: turns an access token into a Caller, or refuses it, by the issuer's public keys."""

import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from pydantic import SecretStr
from starlette.requests import HTTPConnection

from latchstring.annotations import NotFromRequest
from latchstring.core.caller import Caller
from latchstring.core.guard.credentials import bearer_token
from latchstring.core.keys.key_set import JWKS_PATH
from latchstring.core.revocations.rules import refusal_after
from latchstring.core.tokens.rules import Issuer
from latchstring.core.tokens.verification import TokenReader, UnknownKeyError
from latchstring.errors import (
    Code,
    ConfigurationError,
    KeysUnavailableError,
    Refused,
    RefusedError,
    UnavailableError,
)
from latchstring.foundation.clock import Clock, SystemClock
from latchstring.foundation.web.dependency import SecurityDependency
from latchstring.foundation.web.problem import ProblemError
from latchstring.verifier.issuer import IssuerClient
from latchstring.verifier.keys import IssuerKeys
from latchstring.verifier.revocations import PolledRevocations

_IssuerUrl = Annotated[
    str, NotFromRequest("TokenVerifier is missing its call: write verifier = TokenVerifier(…), then Depends(verifier)")
]


class TokenVerifier(SecurityDependency):
    """Verifies access tokens of one issuer; a FastAPI dependency that returns the caller.

        verifier = TokenVerifier(issuer="https://auth.example.com", audience="https://api.example.com")
        CallerDep = Annotated[Caller, Depends(verifier)]

    Run the application inside `running()`: it fetches the keys before the first request, and closes connections at the
    end. Making a verifier fetches nothing yet.

    Args:
        issuer: the expected `iss`, compared exactly: the issuer's public URL.
        audience: the expected `aud`, compared exactly; the issuer by default.
        jwks_url: the URL of the public keys; `/.well-known/jwks.json` at the issuer by default.
        revocations_url: the issuer's revocation feed, such as `https://auth.example.com/api/auth/revocations`.
            Without it, a sign-out takes effect here when the access token expires, and a key that was retired at
            once is dropped when the keys are fetched next.
        feed_token: the token that `latchstring feed-token create` printed; required with `revocations_url`.
        max_lag_seconds: with `revocations_url`, every token is refused with 503 if the last successful poll began
            longer ago than this. At least 1.
        allow_http: accept plain http URLs; only for this machine, or for a network without other parties.
        clock: the clock to use; the machine's by default.

    Raises:
        ConfigurationError: a URL is not https, or an argument is missing or out of range.
    """

    instead: ClassVar[str] = "Where a caller may have no token, read the header in the route and call verify(token)."

    def __init__(
        self,
        *,
        issuer: _IssuerUrl,
        audience: str | None = None,
        jwks_url: str | None = None,
        revocations_url: str | None = None,
        feed_token: SecretStr | str | None = None,
        max_lag_seconds: float = 10,
        allow_http: bool = False,
        clock: Clock | None = None,
    ) -> None:
        """Configure the verifier; see the class."""
        if jwks_url is None and not issuer.startswith(("https://", "http://")):
            raise ConfigurationError("jwks_url must be given: the issuer is not a URL, so its keys can't be found")
        if (revocations_url is None) != (feed_token is None):
            raise ConfigurationError("revocations_url and feed_token go together: give both or neither")
        if not max_lag_seconds >= 1:  # in this form it refuses NaN, which no age of the set would exceed
            raise ConfigurationError("max_lag_seconds must be at least 1")
        keys_url = _checked(jwks_url or issuer.rstrip("/") + JWKS_PATH, "jwks_url", allow_http=allow_http)
        self._clock = clock or SystemClock()
        self._issuer = IssuerClient()
        self._reader = TokenReader(Issuer(name=issuer, audience=audience or issuer))
        self._keys = IssuerKeys(keys_url, self._issuer, self._clock)
        self._revocations: PolledRevocations | None = None
        if revocations_url is not None and feed_token is not None:
            self._revocations = PolledRevocations(
                _checked(revocations_url, "revocations_url", allow_http=allow_http),
                SecretStr(feed_token) if isinstance(feed_token, str) else feed_token,
                self._issuer,
                self._keys,
                self._clock,
                max_lag_seconds=max_lag_seconds,
            )
        self.model = HTTPBearerModel(bearerFormat="JWT", description=f"An access token of {issuer}.")
        self.scheme_name = "accessToken"

    def __str__(self) -> str:
        return "TokenVerifier"

    async def __call__(self, connection: HTTPConnection) -> Caller:
        """Return the caller, from the token in the `Authorization` header. FastAPI calls this.

        Raises:
            HTTPException: 401, 403, 404 or 503, with the same problem documents and headers as the issuer's routes.
        """
        token = bearer_token(connection.scope["headers"])
        if isinstance(token, Refused):
            raise ProblemError(token.code)
        if token is None:
            raise ProblemError(Code.MISSING_TOKEN)
        try:
            return await self.verify(token)
        except RefusedError as refused:
            raise ProblemError(refused.code, token_sent=True) from None
        except UnavailableError as error:
            raise ProblemError(error.code) from error

    async def verify(self, token: str) -> Caller:
        """Return the caller of a valid access token. No I/O, unless the token names an unknown key.

        Raises:
            RefusedError: `invalid_token`, `token_expired` or, with a revocation feed, `session_ended`,
                `claims_changed` or `user_not_found`.
            KeysUnavailableError: the issuer's keys have not been fetched yet.
            RevocationsUnknownError: the last successful poll of the feed began longer ago than `max_lag_seconds`.
        """
        # Before anything else: while the feed can't be read, no token is accepted, however it looks.
        if self._revocations is not None:
            self._revocations.refuse_if_stale()
        now = self._clock.now().timestamp()
        try:
            caller = self._reader.access(token, self._keys.current(), now=now)
        except UnknownKeyError as unknown:
            caller = await self._read_with_keys_after(unknown, token, now=now)
        if caller is None:
            raise RefusedError(Code.INVALID_TOKEN)
        if caller.expires_at_unix <= now:
            raise RefusedError(Code.TOKEN_EXPIRED)
        if self._revocations is not None:
            reason = self._revocations.revocation_reason(caller)
            if reason is not None:
                raise RefusedError(refusal_after(reason))
        return caller

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Fetch the keys, and poll the revocation feed if there is one, while the block runs.

        An unreachable issuer does not keep the service from starting. Every token is refused with 503 until it can be
        reached.
        """
        async with self._issuer.connected():
            await self._keys.look_up()
            try:
                async with contextlib.AsyncExitStack() as stack:
                    if self._revocations is not None:
                        await stack.enter_async_context(self._revocations.polling())
                    yield
            finally:
                await self._keys.close()

    async def _read_with_keys_after(self, unknown: UnknownKeyError, token: str, *, now: float) -> Caller | None:
        # A thief can still present tokens of a retired key: they must not cost the issuer a request each.
        if self._keys.is_retired(unknown.key_id):
            return None
        keys = await self._keys.look_up()
        if not keys:
            raise KeysUnavailableError("the issuer's keys have not been fetched yet")
        try:
            return self._reader.access(token, keys, now=now)
        except UnknownKeyError:
            return None


def _checked(url: str, name: str, *, allow_http: bool) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise ConfigurationError(f"{name} must be an https URL")
    if parts.scheme == "http" and not allow_http:
        # Without TLS anyone on the network path can replace the keys, and then sign tokens for every user.
        raise ConfigurationError(
            f"{name} must be https, because an http response can be replaced. In a private network, set allow_http=True"
        )
    return url
