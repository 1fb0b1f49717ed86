"""RetinaNet-50: a training step and inference, beside torchvision's, and what detection costs.

    python -m benchmarks.detection                  # 2 images of 640, 15 rounds

All cases run in the same rounds, in random order, on random images with ten boxes each:

- `train`: our step, its forward and backward pass, with SGD; of it, `targets and loss` runs matching
  and both losses with their gradients alone, on the network's own outputs.
- `inference`: from images to 100 detections each; of it, `decoding` runs top-k and NMS alone.
- the same two of torchvision's retinanet_resnet50_fpn, where torchvision is installed.

Both frameworks use all CPU cores, and random weights. torchvision's network has BatchNorm in the
backbone only and 91 outputs; ours has it in the pyramid and in the heads too, and 80 outputs.
"""

import argparse
import importlib.util
import os
import platform

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.timing import side_by_side_times, spread
from detection import decode, losses, matching
from detection.anchors import make_anchors
from models.retinanet import RetinaNet
from training.state import make_network

CLASSES, BOXES, MAX_BOXES = 80, 10, 100
