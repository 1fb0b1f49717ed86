"""Non-maximum suppression in ONNX's own operators, behind a detector's network.

`detection.decode` is loops over blocks of boxes, quick on accelerators; ONNX has an operator for
what they compute. The candidates are the same, the best pairs of anchor and class over all of them,
ties too; so are the boxes that are kept, in the same order.
"""

import numpy as np
import onnx
from onnx import compose, numpy_helper, parser

# Rank is an integer that falls from a candidate to the next, and 0 is none: so scores that are
# equal in float32 stay in the order of their logits.
_GRAPH = """
<ir_version: {ir}, opset_import: ["" : {opset}]>
nms (float[batch, anchors, classes] class_logits, float[batch, anchors, 4] compared_boxes,
     float[batch, anchors, 4] original_boxes)
  => (float[batch, {detections}, 4] boxes, float[batch, {detections}] scores,
      int32[batch, {detections}] labels)
{{
  flat_shape = Constant<value_ints: ints = [0, -1]> ()
  flat = Reshape(class_logits, flat_shape)
  count = Constant<value_ints: ints = [{candidates}]> ()
  top, pair = TopK(flat, count)
  num_classes = Constant<value_int: int = {classes}> ()
  anchor = Div(pair, num_classes)
  class = Mod(pair, num_classes)
  last = Constant<value_ints: ints = [-1]> ()
  anchor_index = Unsqueeze(anchor, last)
  candidate = GatherND<batch_dims: int = 1>(compared_boxes, anchor_index)
  original = GatherND<batch_dims: int = 1>(original_boxes, anchor_index)
  score = Sigmoid(top)

  least = Constant<value_float: float = {min_score}> ()
  high = GreaterOrEqual(score, least)
  area = ReduceSum<keepdims: int = 0>(candidate, last)
  broken = IsNaN(area)
  whole = Not(broken)
  valid = And(high, whole)
  rank = Where(valid, falling, zero)

  middle = Constant<value_ints: ints = [1]> ()
  class_row = Unsqueeze(class, middle)
  of_class = Equal(class_row, class_column)
  rank_row = Unsqueeze(rank, middle)
  rank_of_class = Where(of_class, rank_row, zero)
  most = Constant<value_int: int = {detections}> ()
  iou = Constant<value_float: float = {iou_threshold}> ()
  kept = NonMaxSuppression(candidate, rank_of_class, most, iou, zero)

  columns = Constant<value_ints: ints = [0, 2]> ()
  place = Gather<axis: int = 1>(kept, columns)
  kept_rank = GatherND(rank, place)
  none = Sub(rank, rank)
  ranks = ScatterND(none, place, kept_rank)
  taken = Constant<value_ints: ints = [{taken}]> ()
  best, best_index = TopK(ranks, taken)
  found = Greater(best, zero)
  index = Unsqueeze(best_index, last)
  best_boxes = GatherND<batch_dims: int = 1>(original, index)
  best_scores = GatherND<batch_dims: int = 1>(score, index)
  best_classes = GatherND<batch_dims: int = 1>(class, index)
  found_column = Unsqueeze(found, last)
  some_boxes = Where(found_column, best_boxes, zero)
  some_scores = Where(found, best_scores, zero)
  minus_one = Constant<value_int: int = -1> ()
  some_labels = Where(found, best_classes, minus_one)

  box_pads = Constant<value_ints: ints = [0, 0, 0, 0, {missing}, 0]> ()
  pads = Constant<value_ints: ints = [0, 0, 0, {missing}]> ()
  boxes = Pad(some_boxes, box_pads)
  scores = Pad(some_scores, pads)
  long_labels = Pad(some_labels, pads, minus_one)
  labels = Cast<to: int = 6>(long_labels)
}}
"""


def append(network: onnx.ModelProto, fields, *, anchors: int, classes: int) -> onnx.ModelProto:
    """Puts non-maximum suppression behind a network.

    Args:
      network: its outputs are `class_logits`, `compared_boxes` and `original_boxes`,
        see `Served.before_nms`.
      fields: `config.detection`.
      anchors, classes: how many there are.

    Returns:
      The model whose outputs are `boxes`, `scores` and `labels`, as `Detection.detect` has them.
    """
    candidates = min(fields.max_candidates, anchors * classes)
    detections = max(fields.max_detections)
    taken = min(candidates, detections)
    text = _GRAPH.format(
        ir=network.ir_version,
        opset=next(x.version for x in network.opset_import if not x.domain),
        candidates=candidates,
        classes=classes,
        detections=detections,
        taken=taken,
        missing=detections - taken,
        min_score=repr(float(fields.min_score)),
        iou_threshold=repr(float(fields.nms_iou)),
    )
    nms = parser.parse_model(text)
    for name, value in (
        ("falling", np.arange(candidates, 0, -1, dtype=np.float32)),
        ("class_column", np.arange(classes)[:, None]),
        ("zero", np.float32(0)),
    ):
        nms.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    network = compose.add_prefix(network, "network/", rename_inputs=False)
    names = [(f"network/{x.name}", x.name) for x in nms.graph.input]
    return compose.merge_models(network, nms, names)
