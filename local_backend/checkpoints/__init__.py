"""What a model file is, by its keys and shapes, and how it becomes a module."""
