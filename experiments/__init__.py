"""The paper's tables and figures: sweeps of `train.py`, made from configs."""
