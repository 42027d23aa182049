"""Tests; the folders mirror `pipelines/`."""
