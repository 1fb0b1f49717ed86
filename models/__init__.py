"""Flax NNX models: arrays in, named arrays out."""
