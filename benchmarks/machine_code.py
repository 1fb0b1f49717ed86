"""What a TPU's compiler says of a program's kernels: their traffic and their instructions.

`hbm_bytes` is the traffic that each op has with a TPU's memory, read from the program's text
(`training/hlo.py`), and `bundles` counts a kernel's instructions in its machine code.
"""

import re

from training.hlo import FREE, Op, arrays, nbytes

# --- Memory.


def hbm_bytes(ops: dict[str, Op]) -> dict[str, int]:
    """The bytes of HBM that each op of a computation reads and writes.

    Those are its operands and its results, but for what lives in VMEM, the memory on the chip
    (layout `S(1)`, or another `S`). What was copied from HBM to VMEM beforehand counts as read by
    each op that uses it, and what is copied from VMEM to HBM afterwards as written by the op
    that made it: such copies run beside other work in a small program, and don't in a network.
    """
    traffic = {
        op.name: _hbm(op.shape) + sum(_read(ops, name) for name in set(op.operands))
        for op in ops.values()
        if op.kind not in FREE
    }
    for op in ops.values():
        if op.kind == "copy-start" and not _hbm(ops[op.operands[0]].shape):
            made = ops[op.operands[0]]
            while made.kind in ("bitcast", "get-tuple-element", "copy-done"):
                made = ops[made.operands[0]]
            done = next(arrays(op.shape))
            if made.name in traffic:
                traffic[made.name] += _hbm(done)
    return traffic


def _read(ops: dict[str, Op], name: str) -> int:
    """The bytes of HBM behind a value."""
    op = ops[name]
    if op.kind == "constant" or _hbm(op.shape):
        return _hbm(op.shape)
    if op.kind in ("copy-done", "slice-done"):  # in VMEM: of what its start has copied
        source = ops[ops[op.operands[0]].operands[0]]
        return nbytes(op.shape) if _hbm(source.shape) else _read(ops, source.name)
    if op.kind in ("bitcast", "ConcatBitcast"):
        return sum(_read(ops, operand) for operand in op.operands)
    return 0


def _hbm(shape: str) -> int:
    return sum(nbytes(array) for array in arrays(shape) if "S(" not in array)


# --- Kernels.


def bundles(text: str) -> tuple[int, int]:
    """The instructions (VLIW bundles) that a kernel of a TPU issues.

    A loop ends in a branch back to the region that its first bundle starts, if a counter has not
    reached a number. Where the loop moves data between HBM and VMEM in a pipeline, two of its
    rounds only fill and drain that: they do no work. Both sides of other branches count.

    Args:
      text: a `*-final_bundles.txt`.

    Returns:
      The count, and how many loops turn as often as data says: each of them is counted once.
    """
    lines = [line for line in text.splitlines() if re.match(r"\s*(0x[0-9a-f]+|0)\s.*:", line)]
    # What a predicate compares with. A kernel is SSA: it has one definition.
    limits = {
        found[1]: found[2]
        for found in re.finditer(r"(%p\w+) = scmp\.ge\.s32\.totalorder %\w+, (\w+)", text)
    }
    times, starts, open_loops = [1] * len(lines), {}, 0
    for last, line in enumerate(lines):
        if " LB:" in line:
            starts |= dict.fromkeys(re.findall(r"Start region (\d+)", line), last)
        back = re.search(r"sbr\.rel (?:\(!(%p\w+)\))?.*?target = \$region(\d+)", line)
        if back is None or back[2] not in starts:
            continue
        first, limit = starts[back[2]], limits.get(back[1], "")
        trips = int(limit) if limit.isdigit() else 1
        open_loops += not limit.isdigit()
        if "iteration index, stage" in lines[first]:
            trips = max(trips - 2, 1)
        times[first : last + 1] = [count * trips for count in times[first : last + 1]]
    return sum(times), open_loops


def alike(text: str) -> dict[str, str]:
    """Op -> the op whose machine code it shares, from a `*-deduplication-map.txt`."""
    return {
        name: block.split()[0]
        for block in re.split(r"^key:", text, flags=re.MULTILINE)[1:]
        for name in re.findall(r"^  (\S+)$", block, flags=re.MULTILINE)
    }
