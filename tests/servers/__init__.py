"""Providers on loopback: they keep to the documented format, and misbehave on request."""
