"""What a browser may ask of the pack over HTTP, and set on this machine."""
