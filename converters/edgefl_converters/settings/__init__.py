"""Holds and checks what the user asked for: come here to add an option of a conversion."""
