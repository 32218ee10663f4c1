"""Signing keys: where they come from, how they are rotated, and how they are published.

settings.py     algorithm, keys from the environment, how long published keys may be cached
rotation.py     a key's states, and what a rotation or a retirement changes; pure
key_set.py      a key, a set of keys, and its JWKS document, written and parsed
strict_json.py  the JSON parser of key sets and tokens; pure
ring.py         the set in force in this process: from the database, or from the environment
actions.py      prepare, rotate, retire, and the periodic task
store.py, tables.py   rows of keys, private halves sealed
routes.py, schemas.py   /.well-known/jwks.json, and the metadata that name it
"""
