"""The HTTP side: app, authorisation, limits, routes."""
