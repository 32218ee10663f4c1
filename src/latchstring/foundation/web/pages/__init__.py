"""Rendering and URLs of HTML pages, over the same actions as the JSON routes.

    options.py      Pages: name, look, templates and languages, as an application chooses them
    urls.py         PageUrls: URLs of pages, and redirects within the application
    renderer.py     Renderer: a template to a response
    templates.py    Jinja2 environments, one per language; an application's templates before ours
    translations.py gettext catalogues, and the choice of a visitor's language
    assets.py       style sheets, scripts and the icon, named after a hash of their content
    form.py         the values of a form, and what is wrong with them
    destination.py  where `next` may lead; pure
    agents.py       the name of a browser and its system
    problems.py     the sentence for a refusal
    policy.py       content security policy and other headers
    route.py        PageRoute: the route class of pages; its refusals are pages too
    routes.py       the routes of assets and of the choice of language
    templates/, static/, locale/

This package knows neither users nor sessions. Without `pages=…` an application needs only `options`, and Jinja2 is not
imported.
"""
