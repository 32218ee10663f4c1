"""What every room's pages are made with: HTML for the eye over the same actions as the JSON routes.

    options.py      Pages: what a host says of name, look, words and where its own pages are
    site.py         Site: addresses, and a template to an answer
    templates.py    Jinja2 for each language; a host's folder before ours
    words.py        gettext catalogues, and which of them a visitor reads
    assets.py       style sheets, modules and the icon, named after what is in them
    form.py         what was filled in, and what is wrong with it
    destination.py  where a visitor may be sent on to; pure
    agents.py       a browser's and a system's name
    problems.py     a refusal in a sentence for people
    route.py        a route that answers pages, its refusals included, under a strict policy
    templates/, static/, locale/

Nothing here knows of users or sessions. Without `pages=…` only `options` is ever imported.
"""
