"""Users and their emails.

    rules.py      User, role names and the canonical form of an email; pure
    schemas.py    users in requests and responses
    tables.py     the table of users
    store.py      its named queries

An email has one canonical form, computed here and unique in the database, so that every spelling is the same account
in every sign-in method. Creating an account is one INSERT: of two at the same instant one succeeds, and the other is
refused because the email is taken.
"""
