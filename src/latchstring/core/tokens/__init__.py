"""Access and refresh tokens: JWTs signed with an asymmetric key, read by a strict front-end before any library.

    settings.py  algorithm, lifetimes, issuer, audience, keys from the environment
    compact.py   text to header, claims and signature: pure, and refuses what it does not know
    rules.py     which claims a token must have, and what they mean; pure
    verification.py   a genuine token, or none, by the keys handed in: here, and in services that have no database
    keys.py      a key, a set of keys, and what JWKS shows of it; such a set read again
    rotation.py  the life of a key, and what rotating and retiring change in it; pure
    ring.py      the set in force in this process: from the database, or from the environment
    tokens.py    issue and read, with the set in force
    actions.py   prepare, rotate, retire, tend
    store.py, tables.py   keys at rest, sealed
    routes.py    /.well-known/jwks.json, and where to find it

The algorithm is fixed by the key that `kid` names; the token's own `alg` only has to agree.
"""
