"""The page of a refusal: its template, heading and text."""

from dataclasses import dataclass
from http import HTTPStatus

from latchstring.errors import Code
from latchstring.foundation.web.pages.translations import msgid
from latchstring.foundation.web.problem import PROBLEMS


@dataclass(frozen=True, slots=True)
class RefusalMessage:
    """The template, heading and text for a refusal."""

    template: str
    heading: str
    text: str


_NOT_FOUND = RefusalMessage(
    "not_found.html",
    msgid("This page is not here"),
    msgid("The address may be misspelt, or what was here has moved or is gone."),
)
_BROKEN = RefusalMessage(
    "broken.html",
    msgid("Something broke here"),
    msgid("It was not your doing. Please try again in a moment."),
)
_TOO_MANY = RefusalMessage(
    "too_many.html",
    msgid("Too many tries"),
    msgid("To keep guessers out, there is a pause now. Nobody who is signed in is signed out by it."),
)
_UNAVAILABLE = RefusalMessage(
    "unavailable.html",
    msgid("Not just now"),
    msgid("Something we depend on is away for a moment. Nothing was changed."),
)
_REFUSED = RefusalMessage(
    "refused.html", msgid("This can’t be done"), msgid("The request is not one that this page takes.")
)

_NOBODY = msgid("Nobody is signed in here.")
_BY_CODE = {
    Code.BODY_TIMEOUT: msgid("The form did not arrive in time. Try again."),
    Code.BODY_TOO_LARGE: msgid("The form is too long."),
    Code.CREDENTIALS_CONFLICT: msgid(
        "Two different accounts are signed in by one request. Sign out, then sign in again."
    ),
    Code.DUPLICATE_COOKIE: msgid(
        "Your browser sent a cookie of this site twice, which another site can bring about. "
        "Delete this site’s cookies, then sign in again."
    ),
    Code.METHOD_NOT_ALLOWED: msgid("This address takes a form, and can’t be opened by itself."),
    Code.MISSING_TOKEN: _NOBODY,
    Code.NEXT_NOT_ALLOWED: msgid("The link that brought you here leads to a place it may not lead to."),
    Code.ORIGIN_NOT_ALLOWED: msgid("The request came from another site. Open this page here, and try again."),
    Code.ROLE_REQUIRED: msgid("Your account has no access to this page."),
    Code.SESSION_ENDED: _NOBODY,
    Code.TOKEN_EXPIRED: _NOBODY,
    Code.VALIDATION_FAILED: msgid("The form holds something that no form of ours sends."),
}


def message_for(code: Code) -> RefusalMessage:
    """Return the message for `code`."""
    # By status first: why a service is unavailable, or what broke, is for the log and not for visitors.
    status = PROBLEMS[code][0]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return _UNAVAILABLE
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return _TOO_MANY
    if status == HTTPStatus.NOT_FOUND:
        return _NOT_FOUND
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return _BROKEN
    return RefusalMessage(_REFUSED.template, _REFUSED.heading, _BY_CODE.get(code, _REFUSED.text))
