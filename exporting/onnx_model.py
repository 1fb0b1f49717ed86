"""The function that is exported in ONNX, by jax2onnx; a detector's NMS by ONNX's own operator.

The packages that it needs are asked for when it is called. jax2onnx asks for an older Orbax than
ours, which it does not import: it is installed without what it asks for (docs/export.md).
"""

import contextlib
import copy
import logging
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from exporting.plain import plain
from exporting.program import make_function, served, shapes
from tasks import make_task
from tasks.base import Task
from training.config import ConfigError

INSTALL = "pip install -e '.[onnx]' && pip install --no-deps jax2onnx"


def to_onnx(task: Task, variables: dict[str, Any]):
    """An `onnx.ModelProto` of any batch size, which computes in float32.

    Args:
      task: of the run.
      variables: see `program.make_function`.

    Raises:
      ConfigError: what converts is not installed, or does not know an operation of the network.
    """
    try:
        import jax2onnx
        import onnx

        from exporting import nms
    except ImportError as error:
        raise ConfigError(f"--onnx needs a package more ({error}): {INSTALL}") from error

    row, task = served(task), _in_float32(task)
    fields, decode = task.config, row.before_nms or row.decode
    (batch,) = export.symbolic_shape("batch")
    arguments = shapes(task, batch)
    # Traced here: within the converter Flax's layers are others, that know not all of ours.
    function = make_function(task, variables, decode, platform=None)
    traced, outputs = jax.make_jaxpr(function, return_shape=True)(*arguments)
    try:
        with _quiet(), _jax_as_it_was():
            model = jax2onnx.to_onnx(
                plain(traced),
                arguments,
                model_name="network",
                input_names=tuple(row.all_inputs(fields)),
                output_names=tuple(outputs),
            )
    except Exception as error:  # the converter raises many things
        raise ConfigError(
            f"jax2onnx cannot convert this network ({error}): leave --onnx out"
        ) from error
    # What the converter says of shapes within is wrong here and there; a runtime finds them itself.
    del model.graph.value_info[:]
    if row.before_nms is not None:
        _, anchors, classes = outputs["class_logits"].shape
        model = nms.append(model, fields.detection, anchors=anchors, classes=classes)
    onnx.checker.check_model(model)
    return model


def _in_float32(task: Task) -> Task:
    """The task, whose network computes in float32: few runtimes convolve in bfloat16."""
    config = copy.deepcopy(task.config)
    config.dtype = "float32"
    return make_task(config, train=False, evaluate=False)


@contextlib.contextmanager
def _jax_as_it_was():
    """Within it jax.numpy may be changed: the converter leaves its own cumsum there."""
    before = dict(vars(jnp))
    try:
        yield
    finally:
        jnp.__dict__.update(before)


@contextlib.contextmanager
def _quiet():
    """Within it nothing is logged of parts of the converter that are not there and not needed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
