"""A trained network in files of their own, which need none of this code."""
