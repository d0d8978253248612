"""How fast the levels of acceleration are on this machine, beside the plain pipeline."""
