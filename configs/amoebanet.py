"""What the AmoebaNet configs share, and the rows of the paper's Table 2 as their variants.

Constants: docs/paper.md sections 4 and 7.5.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import defaults

VARIANTS = {
    "baseline": {},
    "dropblock": {"drop.kind": "dropblock"},
    # Not in the table: what AmoebaNet had for a regulariser before, ScheduledDropPath, in all cells
    # and at its authors' keep_prob.
    "drop_path": {
        "drop.kind": "drop_path",
        "drop.keep_prob": 0.7,
        "drop.places.first_half": 1.0,
    },
}


def get_config() -> Any:
    config = defaults.get_config()

    # --- Model (N, F): see models/amoebanet.py. stem and stem_stride are as a ResNet's.
    config.model.name = "amoebanet"
    config.model.cells = "B"  # or "A", "D": a table of models/cell_tables.py
    config.model.cells_per_stack = 6  # N
    config.model.filters = 256  # F
    config.model.head_keep_prob = 0.5  # of the dropout before the last layer
    config.model.remat = "none"  # or "cells", "operations": computed anew, for less memory
    del config.model.depth, config.model.width_multiplier, config.model.convention

    config.drop.places = ConfigDict({"first_half": 0.0, "last_half": 1.0})
    config.drop.keep_prob = 0.9

    config.label_smoothing = 0.1
    config.aux_weight = 0.4  # of the auxiliary head's loss; 0: there is no such head
    config.optimizer.name = "rmsprop"
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = False
    config.optimizer.rms_decay = 0.9
    config.optimizer.rms_epsilon = 1.0
    config.optimizer.weight_decay = 4e-5
    config.optimizer.decay_biases = False
    return config
