"""Local disk and S3: small files, turns, lifecycle, cost."""
