"""The pack's rooms. Importing this package loads nothing, so every room works without ComfyUI."""
