"""The revisions, one file each, in a linear history."""
