"""The command line: verbs, output, exit codes."""
