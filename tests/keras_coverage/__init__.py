"""Every public layer, loss, optimizer, metric and activation of Keras: does it convert, and how far is it from Keras?

One row for each, in the module of its family. `make coverage` runs all rows and writes docs/coverage.md;
tests/converters/test_coverage.py holds what is written there to it: representatives.py says which rows each time.
"""
