"""Sessions: create, refresh, list and revoke them.

    settings.py     grace, absolute lifetime, limits, and how far a worker may lag behind revocations
    rules.py        lifetimes, and what a presented refresh token means; pure
    tables.py, store.py   the session row, which is the truth, and its named queries
    creation.py     the one function that creates a session; only core.sign_in may import it
    issuing.py      the tokens of an active session, and the application's claims hook
    refresh.py      the next generation, for a refresh token or a fresh proof; revokes a stolen session
    revoking.py     revocations of sessions and users, written in the transaction that ends them
    actions.py      list, revoke, sign out, sign everyone out
    responses.py    both tokens as cookies, or in the body
    routes.py, schemas.py   refresh, logout and the list of sessions, over JSON
    page_router.py  the router of every package's pages
    redirects.py    where a page redirects a visitor whom a guard refused
    step_up.py      a form that waits in the confirmation page for a fresh proof
    visitor_page.py pages for signed-in visitors, which refresh while they are open
    pages.py        the list, sign-out and the renewal, as pages

Both tokens carry the session's id. A refresh moves the row from one generation to the next by one conditional UPDATE.
A client that presents the previous generation within the grace (another tab, or a lost response) gets the same
successor again. Any older token is a stolen copy, and revokes the session.
"""
