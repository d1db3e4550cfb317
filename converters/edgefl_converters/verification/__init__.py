"""Parity: does a model file train as its Keras model does?"""
