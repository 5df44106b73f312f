"""The built-in rewards, one file each; announced in pyproject.toml, reached by the registry."""
