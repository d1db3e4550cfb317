"""What the user asked for, checked: come here to add an option of a conversion."""
