"""``python -m edgefl``: the same as the command ``edgefl``."""

from edgefl.cli.main import main

main()
