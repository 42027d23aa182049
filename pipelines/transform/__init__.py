"""Turns bronze into silver and gold."""
