"""Tools that know nothing of users: time, hashing, encryption, the database, the audit trail, limits, HTTP and pages.

clock.py         time and ids
vault.py         encryption of stored values
passwords.py     password hashes, in a bounded pool of threads
database/        transactions on SQLite and PostgreSQL
events.py        events, which audit.py records and subscribers.py passes to the application
limits/          sliding windows of attempts
background.py    work that runs beside requests: polling.py, housekeeping.py
loop_lock.py     a lock for one event loop after another
web/             problem+json, cookies, origin check, client address, pages
"""
