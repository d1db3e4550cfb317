"""A Flower app whose devices train with edgefl."""
