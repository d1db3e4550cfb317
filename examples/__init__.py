"""Runnable examples; each folder has a README that says what it shows and with which command."""
