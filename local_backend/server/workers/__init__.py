"""What paints: a process or a Ray replica."""
