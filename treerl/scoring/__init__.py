"""How rewards are called: what they must leave alone, what happens when they fail, and where they run."""
