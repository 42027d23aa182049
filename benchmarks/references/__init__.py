"""What others would write for the same task; each runs in its own process and environment and prints one JSON line."""
