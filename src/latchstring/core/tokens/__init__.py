"""Access and refresh tokens: JWTs signed with an asymmetric key, read by a strict front-end before any library.

    settings.py  lifetimes and audience
    compact.py   text to header, claims and signature: pure, and refuses what it does not know
    rules.py     which claims a token must have, and what they mean; pure
    verification.py   a genuine token, or none, by the keys handed in: here, and in services that have no database
    tokens.py    issue and read, with the set in force

The algorithm is fixed by the key that `kid` names; the token's own `alg` only has to agree.
"""
