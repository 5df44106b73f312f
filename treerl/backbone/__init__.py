"""What a backbone is, and what diffusers pipelines share."""
