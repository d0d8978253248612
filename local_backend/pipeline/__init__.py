"""The sampler, in diffusers' words."""
