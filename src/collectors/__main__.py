"""`python -m collectors` is the command `collectors`."""

from __future__ import annotations

from collectors.cli.main import main

if __name__ == "__main__":
    main()
