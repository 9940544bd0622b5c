"""``python -m nearflash``: the command line, for launchers that start modules (torchrun)."""

from .cli import main

if __name__ == "__main__":
    main()
