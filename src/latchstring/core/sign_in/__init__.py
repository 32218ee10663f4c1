"""Sign-in: a proof of who someone is, and the policy that says whether it is enough. The one door to a session.

    rules.py     Proof, and `admit`: pure
    actions.py   check the proof against what happened since it was given, and open the session
    token_endpoint.py   /token: tokens in the body, for clients that are no browsers

Passwords end here in a `Proof`, as any other way of signing in will. Nothing else opens a session.
"""
