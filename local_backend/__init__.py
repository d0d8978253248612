"""The model on this machine. Importing this package loads nothing heavy; its modules do."""
