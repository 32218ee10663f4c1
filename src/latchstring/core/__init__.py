"""What every sign-in method needs. Features meet only here: none of them imports another one.

    accounts/     users and their emails
    caller.py     who sends a request, and how and when they proved who they are
    keys/         signing keys and their rotation
    tokens/       access and refresh tokens
    revocations/  which tokens are refused before they expire
    guard/        a request to its caller, or a refusal
    sessions/     create, refresh, list and revoke sessions
    users/        rename, disable, enable and delete users; grant and withdraw roles
    sign_in/      a proof of identity to a session
    feature.py    the interface of features

Imports go from the last to the first, `feature.py`, `sign_in`, … down to `accounts`.
"""
