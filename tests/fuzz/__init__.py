"""Thousands of broken inputs, each refused, skipped or read properly: `make fuzz`."""
