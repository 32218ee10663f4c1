"""Sessions: opened once, read at every request without I/O, renewed by rotation, ended for everyone at once.

    settings.py     grace, absolute age, how stale a worker's knowledge may be
    rules.py        how long things live, and what a presented refresh token means; pure
    credentials.py  which tokens a request shows; pure
    tables.py, store.py   the session row, which is the truth, and the rows of the revocation feed
    opening.py      the one function that opens a session; only core.sign_in may import it
    actions.py      renew, end, shut out, give and take roles
    ended.py        what has ended, in memory; pure
    feed.py         that memory, a quarter of a second behind the database; and the feed's pages, for others
    guard.py        the hot path: a request to a Caller, and the dependencies of a host's routes
    sockets.py      open WebSockets, which are closed when their caller would be let in no longer
    middleware.py   the guard before what is no route of FastAPI's
    answer.py       both cookies, on whatever answers a sign-in
    routes.py       refresh, logout and the list, over JSON
    page_edge.py    the routers of pages, and the way back in for a visitor whose token is over
    pages.py        the list, sign-out and the quiet renewal, as pages

Both tokens carry the session's id. A refresh moves the row from one generation to the next by one conditional
UPDATE; whoever lost that race, or lost the answer, gets the same successor again while the grace lasts. Anything
older than that is a stolen copy, and ends the session.
"""
