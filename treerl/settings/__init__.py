"""The parts of the configuration: types of settings, rules between them, strict YAML, messages."""
