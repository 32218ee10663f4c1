"""The step after restoring a backup: end what the restored copy brought back to life, and name what it can't know.

stored.py   what a package stores, in view of a restore
actions.py  Restore: one transaction that ends every session and key of the copy
"""
