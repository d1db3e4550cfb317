"""What the server keeps: rows in a database, weights and outcomes in files."""
