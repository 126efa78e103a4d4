"""The benchmark: the same work on this runtime and on what a user would run instead."""
