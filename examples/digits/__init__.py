"""A small network for handwritten digits, to be trained by an emulated fleet."""
