"""Users and their e-mail addresses.

An address has one canonical form, computed here and unique in the database, so that every spelling of it is the
same account at every door. Creating an account is one INSERT: of two at the same instant one wins, the other is
told that the address is taken.
"""
