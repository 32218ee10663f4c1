"""Access and refresh tokens: JWTs signed with an asymmetric key, read by a strict front-end before any library.

    settings.py  algorithm, lifetimes, issuer, audience, keys from the environment
    compact.py   text to header, claims and signature: pure, and refuses what it does not know
    rules.py     which claims a token must have, and what they mean; pure
    keys.py      a key, a set of keys, and what JWKS shows of it
    ring.py      the set in force in this process: from the database, or from the environment
    tokens.py    issue and verify, against the set in force
    store.py, tables.py   keys at rest, sealed
    routes.py    /.well-known/jwks.json

The algorithm is fixed by the key that `kid` names; the token's own `alg` only has to agree.
"""
