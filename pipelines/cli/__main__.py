"""`python -m pipelines.cli` is `lakehouse`."""

from pipelines.cli import main

main(prog_name="lakehouse")
