"""Finds which layer and which op is at fault, and what to do: come here to change what a failing conversion says."""
