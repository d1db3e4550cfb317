"""Hands out work to devices and merges what they send back."""
