"""Reads from a model file, without running it, its graphs, what its bytes are for, and how much it computes."""
