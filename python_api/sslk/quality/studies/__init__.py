"""Q-Score as studies: each takes stores and settings, and returns a `Run`."""
