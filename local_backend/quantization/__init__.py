"""Weights as their files store them, and the linear layers that compute with them."""
