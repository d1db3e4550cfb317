"""Trains a model file on local data: numpy and a TFLite interpreter."""
