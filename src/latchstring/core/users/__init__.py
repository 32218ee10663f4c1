"""Changes to users, by an application or an operator. Disabling and deleting a user also revoke the sessions.

    actions.py   the verbs: `auth.users`

The table of users is in `core.accounts`. This package is above `core.sessions`, because its verbs revoke sessions.
"""
