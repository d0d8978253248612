"""The command line: edits, demo, compare."""
