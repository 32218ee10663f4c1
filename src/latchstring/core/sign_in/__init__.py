"""Sign-in: turns a proof of identity into a session, if the proof is enough. The only way to create a session.

    rules.py           Proof, and `admit`: whether a proof is enough; pure
    actions.py         check the proof against the user's present row, then create, confirm or replace a session
    token_endpoint.py  /token: tokens in the body, for clients that are not browsers

Every sign-in method makes a `Proof` and hands it to this package, so that no method can skip a check. The import
contract `one-door` in `pyproject.toml` keeps other packages from creating sessions.
"""
