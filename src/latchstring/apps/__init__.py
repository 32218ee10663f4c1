"""The ready server and the command line."""
