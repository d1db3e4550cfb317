"""A fleet of connections without a thread each, and what it asks of one server process."""
