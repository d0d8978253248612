"""The backends that run on this machine, one file each."""
