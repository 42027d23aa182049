"""The same as `lakehouse quality`, for those who call it as a script: see --help."""

from __future__ import annotations

import sys
from pathlib import Path

# So that it also runs where the package itself is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipelines.cli import main

if __name__ == "__main__":
    main(["quality", *sys.argv[1:]], prog_name="lakehouse")
