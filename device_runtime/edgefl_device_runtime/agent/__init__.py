"""The client of a server: takes tasks, trains, sends outcomes."""
