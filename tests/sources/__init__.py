"""Tests of sources: each provider inherits the conformance suite."""

import pytest

# The suite is no test module by name; its assertions explain themselves all the same.
pytest.register_assert_rewrite("tests.sources.conformance")
