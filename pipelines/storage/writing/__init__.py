"""What lands in tables: appends that drop repeats, and merges."""
