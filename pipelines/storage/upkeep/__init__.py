"""Fewer, larger files and shorter logs."""
