"""What trains the models: one module a peer, with `make_step`; the table of them is in `contending`."""
