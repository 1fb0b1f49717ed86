"""TFDS sets prepared as ArrayRecord, found and read without TensorFlow."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from etils import epath
from google.protobuf.message import DecodeError
from tensorflow_datasets.core import constants
from tensorflow_datasets.core.utils.version import list_all_versions
from tensorflow_datasets.proto import tf_example_pb2

from inputs.examples import Example
from inputs.images import decode_image
from inputs.prepared_info import Feature, PreparedInfo, read_features, read_info
from inputs.reading import DataError, open_file, shown
from inputs.splits import listed
