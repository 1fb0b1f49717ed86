"""One file for each experiment family; variants by `configs/x.py:variant`."""
