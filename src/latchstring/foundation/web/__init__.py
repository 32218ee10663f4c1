"""HTTP tools shared by the routes of all packages.

    settings.py    the public URL, the front end's origin, the proxies in front
    context.py     WebContext: cookies, origin check and client address by the settings; makes routers
    route.py       a route that limits its body and responds with problem+json, whatever the host application does
    body.py        parses JSON and forms, strictly
    cookies.py     our cookies, read from the raw header
    origin.py      which browser requests may change something
    client.py      the client address behind proxies
    dependency.py  the base of our dependencies, which FastAPI runs or refuses to declare
    problem.py     refusals as RFC 9457 problem+json
    headers.py     security headers on every response, as one ASGI middleware
    openapi.py     completes an application's OpenAPI document
    request_id.py  the id of a request, in its response, in logs and in the audit trail
    pages/         what the pages of all packages are made with

Nothing here depends on users or sessions.
"""
