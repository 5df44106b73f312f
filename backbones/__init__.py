"""The built-in backbones, one file each; announced in pyproject.toml, reached by the registry."""
