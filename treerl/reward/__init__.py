"""What a reward is, how rewards are called, where they run and what happens when they fail."""
