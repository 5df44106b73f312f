"""A run: its plan, its loop, its folder, and what is made of it."""
