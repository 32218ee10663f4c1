"""Users, as an application and an operator change them. What takes access away ends the user's sessions with it.

    actions.py   the verbs: `auth.users`

The rows are in `core.accounts`; here is what also touches sessions.
"""
