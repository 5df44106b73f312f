"""Losses of published methods: one a file."""
