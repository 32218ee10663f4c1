"""Tools with no opinion about users: time, randomness, hashing, the database, the audit trail, the web's edges."""
