"""A small decoder with LoRA in edgefl, Keras and PyTorch: what language_models.py compares."""
