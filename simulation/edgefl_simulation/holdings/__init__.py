"""Who holds what: counted, told in a table, drawn, and written to a file for each device."""
