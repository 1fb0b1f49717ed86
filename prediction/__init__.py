"""Predictions of a trained network, from a run's folder or an exported one."""

from prediction.opening import open_run
from prediction.predictor import Predictor

__all__ = ["Predictor", "open_run"]
