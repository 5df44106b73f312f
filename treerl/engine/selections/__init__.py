"""Selections that prune the gradient of a tree: one a file."""
