"""The built-in envs, one file each; announced in pyproject.toml, reached by treerl.registry."""
