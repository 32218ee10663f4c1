"""The web's edges, where a whole table is quicker than a request: origins, cookies, addresses, problems."""

import asyncio
import itertools
from http import HTTPStatus
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from starlette.requests import Request
from starlette.types import Message

from latchstring.errors import Code, Refused
from latchstring.foundation.web.body import _is_of_type, read_form
from latchstring.foundation.web.client import client_address
from latchstring.foundation.web.cookies import read_cookies
from latchstring.foundation.web.origin import origin_allowed
from latchstring.foundation.web.problem import PROBLEMS, ProblemError, problem_response
from latchstring.foundation.web.settings import WebSettings, is_loopback

# --- origin -----------------------------------------------------------------------------------------------------------

PUBLIC, FRONT_END = "https://auth.example.com", "https://app.example.com"

FOREIGN = [
    *("null", "", "*", "file://", "https://", "http://evil.example", "https://evil.example", "https://example.com"),
    *("https://auth.example.com.evil.example", "https://evil-auth.example.com", "https://sub.auth.example.com"),
    *("https://auth.example.com:443", "https://auth.example.com:444", "http://auth.example.com", "auth.example.com"),
    *("https://auth.example.com/", "https://auth.example.com/login", "https://auth.example.com?", "//auth.example.com"),
    *("https://AUTH.example.com", "HTTPS://auth.example.com", "https://auth.example.com.", "https://auth.example.comx"),
    *("https://user@auth.example.com", "https://auth.example.com@evil.example", "https://evil.example#" + PUBLIC),
    *("https://auth.example.com https://evil.example", "https://auth.example.com, https://evil.example", " " + PUBLIC),
    *("https://evil.example, https://auth.example.com", "https://auth.example.com\0", "https://auth.ex\xe4mple.com"),
    *("http://localhost", "http://localhost:80", "http://localhost:30000", "https://localhost:8000", "None"),
    *("http://127.0.0.1:8000", "http://[::1]:8000", "http://localhost:8000/", "http://evil.localhost:8000"),
]
NOT_SAME_SITE = [None, b"same-site", b"cross-site", b"", b"Same-Origin", b"same-origin, none", b"same-origin "]
Raw = list[tuple[bytes, bytes]]


def headers(*, site: bytes | None = None, origins: tuple[str, ...] = (), host: str = "localhost:8000") -> Raw:
    sent = [(b"host", host.encode())]
    sent += [(b"origin", origin.encode("latin-1")) for origin in origins]
    return sent if site is None else [*sent, (b"sec-fetch-site", site)]


@pytest.mark.parametrize("client_origin", [None, FRONT_END])
@pytest.mark.parametrize("own_origin", [None, PUBLIC])
def test_an_origin_is_ours_to_the_letter_or_not_at_all(own_origin: str | None, client_origin: str | None) -> None:
    """No prefix, suffix, port, case, path, list or user part of ours makes somebody else's page one of us."""
    ours = {own_origin or "http://localhost:8000"} | ({client_origin} if client_origin else set())
    for site, origin in itertools.product(NOT_SAME_SITE, [*FOREIGN, PUBLIC, FRONT_END, "http://localhost:8000"]):
        sent = headers(site=site, origins=(origin,))
        allowed = origin_allowed(sent, own_origin=own_origin, client_origin=client_origin)
        assert allowed == (origin in ours), (site, origin)


@given(
    origin=st.text(st.characters(max_codepoint=255), max_size=40), host=st.text(st.sampled_from("abc.:"), max_size=8)
)
def test_no_text_but_the_one_is_the_one(origin: str, host: str) -> None:
    """Whatever Origin and Host say: what passes is exactly the public URL's origin."""
    sent = headers(site=b"cross-site", origins=(origin,), host=host)
    assert origin_allowed(sent, own_origin=PUBLIC, client_origin=None) == (origin == PUBLIC)


@pytest.mark.parametrize(
    ("sent", "allowed"),
    [
        (headers(), True),
        (headers(site=b"same-origin"), True),
        (headers(site=b"none"), True),
        (headers(site=b"none", origins=("https://evil.example",)), True),
        (headers(site=b"same-site"), False),
        (headers(site=b"cross-site"), False),
        (headers(site=b""), False),
        (headers(origins=(PUBLIC, PUBLIC)), False),
        (headers(origins=(PUBLIC, "https://evil.example")), False),
        (headers(origins=("https://evil.example", PUBLIC)), False),
        ([], True),
        ([(b"origin", b"http://")], False),
    ],
)
def test_fetch_metadata_then_origin_then_no_browser(sent: Raw, *, allowed: bool) -> None:
    """same-origin and none decide by themselves; otherwise one Origin of ours, or neither header at all."""
    assert origin_allowed(sent, own_origin=PUBLIC, client_origin=FRONT_END) == allowed


def test_without_a_host_nothing_is_our_own() -> None:
    """HTTP/1.0 without Host and no public URL: there is no origin that could be ours."""
    for origin in (b"null", b"", b"http://", b"http://None", b"None"):
        assert not origin_allowed([(b"origin", origin)], own_origin=None, client_origin=None)


# --- cookies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "values"),
    [
        ([b"t=a"], ["a"]),
        ([b"x=1; t=a; y=2"], ["a"]),
        ([b"x=1;t=a;y=2"], ["a"]),
        ([b"\tt=a "], ["a"]),
        ([b"t=a=b=="], ["a=b=="]),
        ([b't="a"'], ['"a"']),
        ([b"t="], [""]),
        ([b"t=a; t=b"], ["a", "b"]),
        ([b"t=a", b"t=a"], ["a", "a"]),
        ([b"t"], []),
        ([b'T=a; tt=b; t2=c; xt=d; =t; t =e; t\xa0=f; \xa0t=g; \x0bt=h; \x1ft=i; "t"=j; $t=k; t\0=l'], []),
        ([b"__Host-t=a; __host-t=b; %74=c; x=t=d; x=1, t=e"], []),
        ([b"\xef\xbc\x94=a; \xc2\xa0t=b; \xe2\x80\x80t=c; \xe2\x80\xa8t=d; \xc2\x85t=e"], []),
        ([], []),
    ],
    ids=str,
)
def test_a_cookie_is_read_by_its_exact_name(lines: list[bytes], values: list[str]) -> None:
    """No trimming of other bytes makes a planted name ours ("Cookie Chaos", 2025), and duplicates are all seen."""
    assert read_cookies([(b"cookie", line) for line in lines], b"t") == values
    assert read_cookies([(b"cookie2", line) for line in lines], b"t") == []


# --- content type -----------------------------------------------------------------------------------------------------


@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_no_content_type_breaks_its_reader(content_type: str) -> None:
    """Whatever a header says is JSON or not JSON; nothing raises, and nothing else begins like JSON's type."""
    if _is_of_type("application/json", [content_type]):
        assert content_type.strip().lower().startswith("application/json")


@given(st.text("*'=;\"%0123utf-x ", max_size=30))
def test_no_parameter_breaks_its_reader(parameters: str) -> None:
    """RFC 2231's continuations and encodings, well formed or not."""
    assert _is_of_type("application/json", ["application/json; charset" + parameters]) in {True, False}


# --- forms ------------------------------------------------------------------------------------------------------------


def read(body: bytes) -> dict[str, str]:
    """Returns the fields of a form's body."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    sent = [(b"content-type", b"application/x-www-form-urlencoded")]
    return asyncio.run(read_form(Request({"type": "http", "method": "POST", "headers": sent}, receive)))


honest_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@given(st.dictionaries(honest_text, honest_text, max_size=32))
def test_a_form_is_read_as_it_was_filled_in(fields: dict[str, str]) -> None:
    """Whatever the characters; what is empty is not there (RFC 6749, section 3.2)."""
    assert read(urlencode(fields).encode()) == {name: value for name, value in fields.items() if value}


@given(st.binary(max_size=60) | st.text("abc%&=+0f; \0\xe9", max_size=60).map(str.encode))
def test_no_form_breaks_its_reader(body: bytes) -> None:
    """Whatever comes is read or refused; what is read holds neither NUL nor a surrogate, and every field that came."""
    outcome = read_or_refused(body)
    if isinstance(outcome, ProblemError):
        assert outcome.code is Code.VALIDATION_FAILED
        assert [error["pointer"] for error in outcome.errors] == ["#"]
        return
    assert len(outcome) == sum(bool(pair.partition(b"=")[2]) for pair in body.split(b"&"))
    assert "\0" not in "".join([*outcome, *outcome.values()])
    "".join([*outcome, *outcome.values()]).encode("utf-8", errors="strict")


def read_or_refused(body: bytes) -> dict[str, str] | ProblemError:
    try:
        return read(body)
    except ProblemError as problem:
        return problem


# --- the visitor's address --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "address"),
    [
        ("203.0.113.9", [], "", "203.0.113.9"),
        ("203.0.113.9", [b"198.51.100.1"], "", "203.0.113.9"),
        ("203.0.113.9", [b"198.51.100.1"], "10.0.0.0/8", "203.0.113.9"),
        ("10.0.0.1", [b"198.51.100.1"], "10.0.0.0/8", "198.51.100.1"),
        ("10.0.0.1", [b"6.6.6.6, 198.51.100.1"], "10.0.0.0/8", "198.51.100.1"),
        ("10.0.0.1", [b"6.6.6.6, 198.51.100.1, 10.0.0.2"], "10.0.0.0/8", "198.51.100.1"),
        ("10.0.0.1", [b"6.6.6.6", b"198.51.100.1", b"10.0.0.2"], "10.0.0.0/8", "198.51.100.1"),
        ("10.0.0.1", [b"10.0.0.3"], "10.0.0.0/8", "10.0.0.3"),
        ("10.0.0.1", [b"garbage"], "10.0.0.0/8", "10.0.0.1"),
        ("10.0.0.1", [b"198.51.100.1, garbage"], "10.0.0.0/8", "10.0.0.1"),
        ("10.0.0.1", [b"\xff, ,"], "10.0.0.0/8", "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.0/8", "10.0.0.1"),
        ("::ffff:10.0.0.1", [b"::ffff:198.51.100.1"], "10.0.0.0/8", "198.51.100.1"),
        ("fd00::1", [b"2001:db8::7"], "fd00::/8", "2001:db8::7"),
        ("unix:", [b"198.51.100.1"], "10.0.0.0/8", None),
        (None, [b"198.51.100.1"], "0.0.0.0/0", None),
    ],
)
def test_forwarded_addresses_are_believed_from_named_proxies_only(
    peer: str | None, forwarded: list[bytes], proxies: str, address: str | None
) -> None:
    """Read from the right, as far as those who wrote are trusted (CVE-2023-41338, CVE-2026-45045)."""
    trusted = WebSettings.model_validate({"trusted_proxies": proxies}).trusted_proxies
    sent = [(b"x-forwarded-for", line) for line in forwarded]
    assert client_address(peer, sent, trusted_proxies=trusted) == address


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_origin", "kept"),
    [
        ("https://auth.example.com", "https://auth.example.com"),
        ("https://auth.example.com/", "https://auth.example.com"),
        ("https://AUTH.Example.com:443", "https://auth.example.com"),
        (" https://auth.example.com:8443 ", "https://auth.example.com:8443"),
        ("http://localhost:80", "http://localhost"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_origin_is_kept_as_a_browser_writes_it(given_origin: str, kept: str) -> None:
    """However the operator spells it, it is compared with what a browser sends."""
    assert WebSettings.model_validate({"public_url": given_origin}).public_url == kept


@pytest.mark.parametrize(
    "value",
    [
        *("auth.example.com", "//auth.example.com", "ftp://auth.example.com", "https://", "https://*.example.com", "*"),
        *("https://auth.example.com/auth", "https://auth.example.com?x", "https://auth.example.com#x", "null", ""),
        *("https://user@auth.example.com", "https://auth.example.com:port", "https://auth.example.com:99999"),
        *("http://auth.example.com", "http://10.0.0.1", "https://a.example,https://b.example", "https://a b.example"),
    ],
)
def test_what_is_no_safe_origin_is_no_public_url(value: str) -> None:
    """A path, a wildcard, a list or plain http in public would be taken for something it is not: refused."""
    with pytest.raises(ValidationError):
        WebSettings.model_validate({"public_url": value})


def test_the_development_front_end_goes_with_the_first_public_url() -> None:
    """http://localhost:3000 may call only as long as nobody said where the service stands."""
    assert WebSettings().allowed_client_origin == "http://localhost:3000"
    assert WebSettings.model_validate({"public_url": PUBLIC}).allowed_client_origin is None
    with_both = WebSettings.model_validate({"public_url": PUBLIC, "client_origin": FRONT_END})
    assert with_both.allowed_client_origin == FRONT_END
    with pytest.raises(ValidationError):
        WebSettings.model_validate({"public_url": PUBLIC, "client_origin": "http://app.example.com"})


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *[(host, True) for host in ("localhost", "127.0.0.1", "127.8.8.8", "::1", "[::1]", "app.localhost")],
        *[(host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.example.com", "")],  # noqa: S104
    ],
)
def test_this_machine_only(host: str, *, loopback: bool) -> None:
    """What counts as development is what nobody else can reach."""
    assert is_loopback(host) == loopback


# --- problems ---------------------------------------------------------------------------------------------------------


def test_every_code_has_its_status_and_sentence() -> None:
    """The closed list is closed on both sides, and no status is one that HTTP does not know."""
    assert set(PROBLEMS) == set(Code)
    for code in Code:
        status, detail = PROBLEMS[code]
        assert 400 <= HTTPStatus(status) < 600
        assert detail


@pytest.mark.parametrize("code", Code)
def test_headers_follow_from_the_status(code: Code) -> None:
    """Every 401 challenges, every 429 and 503 says when to come back, nothing is stored."""
    answer = problem_response({"type": "http"}, code)
    assert answer.media_type == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    challenge = answer.headers.get("www-authenticate")
    if code is Code.INSUFFICIENT_USER_AUTHENTICATION:
        detail = PROBLEMS[code][1]
        assert challenge == f'Bearer error="insufficient_user_authentication", error_description="{detail}"'
    else:
        challenged = answer.status_code == 401 or code is Code.INVALID_CREDENTIALS
        assert challenge == ("Bearer" if challenged else None)
    assert answer.headers.get("retry-after") == ("1" if answer.status_code in {429, 503} else None)


@pytest.mark.parametrize("code", Code)
def test_a_token_that_was_sent_and_refused_is_called_invalid(code: Code) -> None:
    """RFC 6750 of every 401 but that of a good token with an old proof (RFC 9470): nobody is to throw that one away."""
    challenge = (ProblemError(code, token_sent=True).headers or {}).get("WWW-Authenticate", "")
    is_refused = PROBLEMS[code][0] == 401 and code is not Code.INSUFFICIENT_USER_AUTHENTICATION
    assert (challenge == 'Bearer error="invalid_token"') == is_refused
    assert ("invalid_token" in challenge) == is_refused


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, "1"), (-3.0, "1"), (0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (899.5, "900")]
)
@pytest.mark.parametrize("code", [code for code in Code if PROBLEMS[code][0] in {429, 503}])
def test_who_comes_back_when_told_comes_late_enough(code: Code, seconds: float | None, shown: str) -> None:
    """Whole seconds, rounded up, and never nought: a client that waits as long is not refused once more for it."""
    refused = ProblemError.of(Refused(code, retry_after_seconds=seconds))
    assert refused.headers == {"Retry-After": shown}


@given(st.floats(min_value=0, max_value=1e9))
def test_what_is_asked_for_is_never_older_than_what_is_taken(seconds: float) -> None:
    """`max_age` is whole seconds, rounded down: a proof as old as it says is fresh enough."""
    headers = ProblemError(Code.INSUFFICIENT_USER_AUTHENTICATION, max_age_seconds=seconds).headers or {}
    told = int(headers["WWW-Authenticate"].rsplit('max_age="', 1)[1].removesuffix('"'))
    assert told <= seconds < told + 1
