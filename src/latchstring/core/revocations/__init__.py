"""Revocations: what has ended before it expired, known to every process a quarter of a second later.

rules.py     whom a revocation means, why, and what the caller hears; pure
revoked.py   what has ended, in memory; pure, so that another service can keep the same memory
feed.py      that memory, filled from the database; and the feed's pages, for other services
store.py, tables.py   the rows of the feed, found by commit order and never by time
schemas.py   the feed in responses
"""
