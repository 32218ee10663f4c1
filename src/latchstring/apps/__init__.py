"""The ready server and the command line.

server.py          the application with every feature; health.py, cors.py, connections.py, logs.py
environment.py     settings from the environment and `.env`; its only reader
data_directory.py  the directory of the SQLite database and the secret
cli/               the command line
dashboard/         the tutorial's protected route and page
"""
