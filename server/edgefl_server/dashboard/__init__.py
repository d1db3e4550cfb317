"""The pages that operators see in a browser: runs with live curves, devices, storage; there is no build step.

Pages are HTML from `templates/`; scripts and styles are files of this package (`static/`), and a strict policy lets a
browser load nothing else. Nothing about a single device's update is on any page.
"""

from edgefl_server.dashboard.installing import add_dashboard

__all__ = ["add_dashboard"]
