"""Weights of other people's networks: their files, which are not trusted, and whose names are whose."""
