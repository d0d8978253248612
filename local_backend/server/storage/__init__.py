"""Files: uploads, downloads from URLs, expiry, decoding."""
