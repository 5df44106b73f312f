"""The worlds of the tiny models: captioned shapes, still and moving."""
