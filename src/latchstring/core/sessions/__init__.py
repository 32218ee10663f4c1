"""Sessions: created once, renewed by rotation, listed, and ended for everyone at once.

    settings.py     grace, absolute age, how stale a worker's knowledge may be
    rules.py        how long things live, and what a presented refresh token means; pure
    tables.py, store.py   the session row, which is the truth
    creation.py     the one function that creates a session; only core.sign_in may import it
    issuing.py      a living session to its tokens
    refresh.py      the next generation: for a refresh token, or for a fresh proof; and the end of a stolen one
    revoking.py     revocations of sessions and users, in the transaction that ends them
    actions.py      list, revoke, sign out, sign everyone out
    responses.py    both cookies, or both tokens in the body
    routes.py       refresh, logout and the list, over JSON
    page_router.py  what every package's pages are built on: redirects.py, step_up.py, visitor_page.py
    pages.py        the list, sign-out and the quiet renewal, as pages

Both tokens carry the session's id. A refresh moves the row from one generation to the next by one conditional
UPDATE; whoever lost that race, or lost the answer, gets the same successor again while the grace lasts. Anything
older than that is a stolen copy, and ends the session.
"""
