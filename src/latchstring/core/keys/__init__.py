"""Signing keys: where they come from, how they are rotated, and how others get to know them.

settings.py  algorithm, keys from the environment, how long they are cached
rotation.py  the life of a key, and what rotating and retiring change in it; pure
key_set.py   a key, a set of keys, and what JWKS shows of it; such a set read again
ring.py      the set in force in this process: from the database, or from the environment
actions.py   prepare, rotate, retire, and the periodic task
store.py, tables.py   keys at rest, sealed
routes.py    /.well-known/jwks.json, and where to find it
"""
