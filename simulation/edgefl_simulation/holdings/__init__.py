"""The holdings of devices: counted, told, drawn, and written to a file for each device."""
