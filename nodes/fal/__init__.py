"""fal and servers that speak its protocol: client, storage, prices, journal, backend."""
