"""The fal-compatible server: the local backend behind fal's own protocol, on one box or many."""
