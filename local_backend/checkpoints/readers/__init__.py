"""Tensor files, memory-mapped: safetensors and GGUF."""
