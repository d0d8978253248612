"""The user's settings on disk: the key and the preferences. Paths are handed in."""
