"""The tutorial's protected route and its page: the smallest example of a guarded route."""
