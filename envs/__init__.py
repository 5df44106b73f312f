"""The built-in envs, one file each; announced in pyproject.toml, reached through treerl.registry."""
