"""Revocations: which tokens are refused before they expire, in every process within a quarter of a second.

rules.py    a revocation, its reasons, and the code the caller gets; pure
revoked.py  the revoked set in memory; pure, so that the verifier in another service uses it too
feed.py     fills that set from the database, and gives its pages to other services
store.py, tables.py   the rows of the feed, read in commit order and never by time
schemas.py  the feed in responses
"""
