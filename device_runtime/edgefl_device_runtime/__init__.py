"""What lives on a device."""
