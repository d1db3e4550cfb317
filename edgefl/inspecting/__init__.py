"""What can be said of a model file without running it: its graphs, what its bytes are for, how much it computes."""
