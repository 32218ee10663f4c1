"""Ways to run it: the ready server and the command line."""
