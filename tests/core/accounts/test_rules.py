"""When two addresses are one account, and what is no address."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latchstring.core.accounts.rules import EMAIL_MAX_LENGTH, InvalidEmailError, canonical_email


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        pytest.param("Ada.Lovelace@Example.COM", "ada.lovelace@example.com", id="case"),
        pytest.param("jose\u0301@example.com", "jos\u00e9@example.com", id="NFD"),
        pytest.param("jos\u00e9@example.com", "jos\u00e9@example.com", id="NFC"),
        pytest.param("\u212aelvin@example.com", "kelvin@example.com", id="kelvin sign, which NFC makes a K"),
        pytest.param("ada@b\u00fccher.example", "ada@xn--bcher-kva.example", id="IDN"),
        pytest.param("ada@bu\u0308cher.example", "ada@xn--bcher-kva.example", id="IDN, NFD"),
        pytest.param("ada@B\u00dcCHER.example", "ada@xn--bcher-kva.example", id="IDN, capitals"),
        pytest.param("ada@XN--BCHER-KVA.example", "ada@xn--bcher-kva.example", id="IDN, as DNS has it"),
        pytest.param("ada@\uff45xample.com", "ada@example.com", id="full-width letter in the domain"),
        pytest.param(" \tada@example.com\r\n", "ada@example.com", id="white space around it"),
        pytest.param("ada+tag@example.com", "ada+tag@example.com", id="a tag is part of it"),
    ],
)
def test_spellings_of_one_address(text: str, canonical: str) -> None:
    """Every spelling of an address that reaches the same mailbox is stored as one."""
    assert canonical_email(text) == canonical


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("\u0131da@example.com", "ida@example.com", id="CVE-2019-19844, dotless i"),
        pytest.param("\u0130da@example.com", "ida@example.com", id="CVE-2019-19844, dotted capital I"),
        pytest.param("\u017fam@example.com", "sam@example.com", id="long s"),
        pytest.param("\u0430da@example.com", "ada@example.com", id="cyrillic a"),
        pytest.param("\uff41da@example.com", "ada@example.com", id="full-width a"),
        pytest.param("\u00c4da@example.com", "\u00e4da@example.com", id="capitals beyond ASCII"),
        pytest.param("ada@ex\u0430mple.com", "ada@example.com", id="cyrillic a in the domain"),
        pytest.param("ada@stra\u00dfe.example", "ada@strasse.example", id="sharp s in the domain"),
        pytest.param("a.da@example.com", "ada@example.com", id="dots count"),
    ],
)
def test_two_people_are_never_one(one: str, other: str) -> None:
    """Addresses that only look alike, or that some case table holds for equal, stay two accounts."""
    assert canonical_email(one) != canonical_email(other)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("@", id="only the sign"),
        pytest.param("ada@", id="no domain"),
        pytest.param("@example.com", id="no mailbox"),
        pytest.param("ada@localhost", id="no dot in the domain"),
        pytest.param("ada@example.com@evil.example", id="CVE-2026-40574, two @"),
        pytest.param('"ada@example.com"@evil.example', id="CVE-2026-40574, two @, one quoted"),
        pytest.param("ada\uff20example.com", id="GHSA-7rqj, homoglyph of @"),
        pytest.param("ada@evil.example\uff20example.com", id="GHSA-7rqj, homoglyph beside @"),
        pytest.param('"ada"@example.com', id="quoted mailbox"),
        pytest.param('"a da"@example.com', id="quoted white space"),
        pytest.param("Ada <ada@example.com>", id="display name"),
        pytest.param("<ada@example.com>", id="angle brackets"),
        pytest.param("ada(countess)@example.com", id="comment"),
        pytest.param("ada@example.com,bob@example.com", id="two addresses"),
        pytest.param("ada@[127.0.0.1]", id="domain literal"),
        pytest.param("ada@example.com.", id="trailing dot"),
        pytest.param("a..b@example.com", id="two dots"),
        pytest.param("ada@ex-.com", id="hyphen at a label's end"),
        pytest.param("ada\n@example.com", id="newline in the mailbox"),
        pytest.param("ada@example.com\nBcc: bob@example.com", id="header injection"),
        pytest.param("ada\0@example.com", id="NUL in the mailbox"),
        pytest.param("ada@example.com\0", id="NUL at the end"),
        pytest.param("ad\u200ba@example.com", id="zero-width space"),
        pytest.param("ada\u202e@example.com", id="right-to-left override"),
        pytest.param("\ud800da@example.com", id="lone surrogate"),
        pytest.param(f"ada@{'b' * 64}.com", id="label of 64"),
        pytest.param(f"ada@{'.'.join(['b' * 60] * 4)}.com.example", id="too long"),
        pytest.param("ada@" + f"{40 * 'ü'}." * 5 + "example", id="too long only as DNS has it"),
    ],
)
def test_what_is_no_address(text: str) -> None:
    """What a mail server or a database could read in two ways is refused, and not repeated in the refusal."""
    with pytest.raises(InvalidEmailError, match=r"^must be a valid email$"):
        canonical_email(text)


@settings(deadline=None)
@given(st.emails() | st.builds("{}@{}".format, st.text(min_size=1, max_size=12), st.text(min_size=1, max_size=20)))
def test_the_canonical_form_is_one_and_clean(text: str) -> None:
    """The canonical form is its own canonical form, NFC, of one line, in ASCII lower case, and fits its column."""
    try:
        canonical = canonical_email(text)
    except InvalidEmailError:
        return
    assert canonical_email(canonical) == canonical
    assert canonical == unicodedata.normalize("NFC", canonical)
    assert canonical.count("@") == 1
    assert canonical.isprintable()
    assert not any("A" <= letter <= "Z" for letter in canonical)
    assert canonical.partition("@")[2].isascii()
    assert len(canonical) <= EMAIL_MAX_LENGTH
