"""What every sign-in needs, and the only place where features meet: accounts, tokens, sessions, sign-in."""
