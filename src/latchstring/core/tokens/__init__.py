"""Access and refresh tokens: JWTs signed with an asymmetric key, parsed strictly before any library sees them.

    settings.py      lifetimes and audience
    compact.py       the strict parser: text to header, claims and signature; pure
    rules.py         which claims a token must have, and what they mean; pure
    verification.py  verify a token with given keys; also used by `latchstring.verifier`, which has no database
    tokens.py        issue and read tokens with the keys in force

The algorithm is fixed by the key that `kid` names; the token's own `alg` only has to agree.
"""
