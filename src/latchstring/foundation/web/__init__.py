"""The web's edges, shared by every room's routes.

    settings.py    the public URL, the front end's origin, the proxies in front
    edge.py        WebContext: the settings, worked out; the routers that every room builds on
    route.py       a route that guards its body and answers problems, whatever the host application does
    body.py        bytes to JSON, strictly
    cookies.py     our cookies, read from the raw header
    origin.py      which browser requests may change something
    client.py      the visitor's address behind proxies
    dependency.py  a dependency of ours, which FastAPI runs or refuses to declare
    problem.py     a refusal as RFC 9457 problem+json
    headers.py     security headers on every answer, as one ASGI middleware
    pages/         what every room's pages are made with
    request_id.py  one name for a request, wherever it is spoken of

Nothing here knows of users or sessions.
"""
