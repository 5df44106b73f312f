"""Branchings beyond the windows of `treerl.engine.branching`: one a file."""
