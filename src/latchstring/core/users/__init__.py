"""`auth.users`: read and change users. Disabling or deleting a user also revokes the sessions.

    actions.py   the verbs

The table of users is in `core.accounts`. This package is above `core.sessions`, because its verbs revoke sessions.
"""
