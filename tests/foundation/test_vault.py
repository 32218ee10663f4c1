"""Encryption at rest: what is sealed opens under its secret, in its place, unchanged, or not at all."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latchstring.foundation.vault import SealedValueError, Vault, new_secret
from latchstring.settings import SECRET_MIN_LENGTH

SECRET = "a secret of the test suite, long enough"
VAULT = Vault(SECRET)
SEALED = VAULT.seal(b"plain", context="key 1")


@settings(deadline=None)
@given(st.binary(max_size=64), st.text(st.characters(exclude_categories=["Cs"]), max_size=16))
def test_what_was_sealed_opens_again(plaintext: bytes, context: str) -> None:
    """Another process with the same secret reads what was sealed, and sees it nowhere in what is stored."""
    sealed = VAULT.seal(plaintext, context=context)
    assert Vault(SECRET).unseal(sealed, context=context) == plaintext
    assert len(plaintext) < 4 or plaintext not in sealed


@pytest.mark.parametrize("secret", [SECRET + " ", SECRET.upper(), SECRET[:-1], "some other secret, of a good length"])
def test_another_secret_opens_nothing(secret: str) -> None:
    """Every other secret, however near, is refused, and goes by another id."""
    with pytest.raises(SealedValueError):
        Vault(secret).unseal(SEALED, context="key 1")
    assert Vault(secret).secret_id != VAULT.secret_id


@pytest.mark.parametrize("context", ["", "key", "key 2", "key 11", "Key 1", "key 1\0"])
def test_a_value_cannot_be_moved(context: str) -> None:
    """A sealed value put into another's place does not open."""
    with pytest.raises(SealedValueError):
        VAULT.unseal(SEALED, context=context)


@pytest.mark.parametrize("position", range(len(SEALED)))
def test_a_changed_byte_shows(position: int) -> None:
    """One bit turned anywhere, in nonce, text or tag, and the value does not open."""
    changed = bytearray(SEALED)
    changed[position] ^= 1
    with pytest.raises(SealedValueError):
        VAULT.unseal(bytes(changed), context="key 1")


@pytest.mark.parametrize("sealed", [SEALED[:length] for length in range(len(SEALED))] + [SEALED + b"\0"], ids=len)
def test_a_value_cut_short_or_lengthened_shows(sealed: bytes) -> None:
    """Nothing but the whole value opens; what is too short to hold a nonce is no other kind of error."""
    with pytest.raises(SealedValueError):
        VAULT.unseal(sealed, context="key 1")


def test_sealing_twice_gives_two_values() -> None:
    """Equal values can't be told from the database: every sealing has a nonce of its own."""
    assert VAULT.seal(b"plain", context="key 1") != SEALED


def test_a_new_secret_is_long_and_new() -> None:
    """A secret we make passes our own check, and no two are alike."""
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert min(map(len, secrets)) >= SECRET_MIN_LENGTH


def test_the_id_of_a_secret_does_not_give_it_away() -> None:
    """The id stands in the database beside what it seals: it is short, always the same, and no part of the key."""
    assert Vault(SECRET).secret_id == VAULT.secret_id
    assert len(bytes.fromhex(VAULT.secret_id)) == 8
    assert SECRET not in VAULT.secret_id
