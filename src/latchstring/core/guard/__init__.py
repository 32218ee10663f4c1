"""The guard: authenticates a request by its access token and this process's memory alone.

credentials.py   the tokens that a request presents; pure
rules.py         whether a proof is recent enough; pure
decide.py        the decision: a `Caller`, or a refusal
dependencies.py  FastAPI's view of it: `CallerDep`, `CurrentUser`, `fresh`, `requires`
pages.py         guards for pages, which redirect a visitor where a JSON route refuses
middleware.py    the guard for mounted applications and static files
sockets.py       connected WebSockets, closed when their caller's session ends
socket_layer.py  the ASGI layer through which a guard watches a WebSocket
"""
