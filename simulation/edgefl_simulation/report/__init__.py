"""A page about runs beside each other: what a folder says becomes tables and pictures, these become HTML and PNGs.

`comparing.py` and `pictures.py` are values in, values out; `page.py` makes HTML of them; `reporting.py` is the shell.
"""

from edgefl_simulation.report.reporting import report

__all__ = ["report"]
