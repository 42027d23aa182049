"""What the exporter looks at, part by part."""
