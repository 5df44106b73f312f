"""The configuration: its schema, and how it is resolved from files, flags and recipes."""
