"""The tutorial's protected route: the least that a guarded page is."""
