"""Weights of PyTorch's networks: their files, which are not trusted, and their names in ours."""
