"""What an edit would do, before it is waited for or paid for: its crops, size, price and time."""
