"""The verbs `convert`, `verify` and `export` of the command line: come here to change what a user types."""
