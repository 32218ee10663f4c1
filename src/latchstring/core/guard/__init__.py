"""The guard: who is asking, decided from the token and this process's memory alone.

credentials.py   which tokens a request shows; pure
rules.py         whether a proof is recent enough; pure
decide.py        the decision: a request to a Caller, or a refusal; no I/O
dependencies.py  FastAPI's view of it: `CallerDep`, `CurrentUser`, `fresh`, `requires`
pages.py         the same for pages, which redirect a visitor where a JSON route refuses
middleware.py    the guard before what is no route of FastAPI's
sockets.py       open WebSockets, which are closed when their caller would be let in no longer
"""
