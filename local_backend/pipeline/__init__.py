"""The sampler, under diffusers' names."""
