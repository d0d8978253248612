"""Fewer and cheaper passes through the transformer: one file per technique, levels.py the table."""
