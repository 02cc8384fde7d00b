"""``python -m pslib`` is the command ``pslib``."""

from pslib.cli import entry

if __name__ == "__main__":
    entry()
