"""What a compiler says that its program costs, read from the program's text.

`parse` reads an optimised HLO module as XLA prints it, `total` adds up a cost over what a program
executes, `hbm_bytes` is the traffic that each op has with a TPU's memory, and `bundles` counts a
TPU kernel's instructions.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator

# Bytes of an element; what is not here (tokens, opaque) has none.
_SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}
_SIZES |= {"f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8, "c64": 8}

# Ops that are no work of their own: names, and copies that run beside the program.
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "ConcatBitcast"}
FREE |= {"while", "conditional", "call", "async-start", "async-update", "async-done"}
FREE |= {"copy-start", "copy-done", "slice-start", "slice-done", "after-all"}


@dataclasses.dataclass(frozen=True)
class Op:
    """One line of an HLO module.

    Attributes:
      name: of its result.
      kind: such as `fusion`; of a custom call its target.
      shape: of its result, as printed.
      operands: names.
      rest: all that follows the operands' opening parenthesis.
    """

    name: str
    kind: str
    shape: str
    operands: tuple[str, ...]
    rest: str

    def called(self, *attributes: str) -> list[str]:
        """Names of the computations under some attributes, such as `body`."""
        found = re.findall(rf"\b(?:{'|'.join(attributes)})=(?:\{{(.*?)\}}|%([\w.\-]+))", self.rest)
        return re.findall(r"[\w.\-]+", " ".join(several or one for several, one in found))


@dataclasses.dataclass(frozen=True)
class Module:
    """An HLO module: `{computation: {op: Op}}`, the last op of each being its root."""

    computations: dict[str, dict[str, Op]]
    entry: str

    def count(self, *kinds: str) -> int:
        """How many ops there are of some kinds, those inside of fusions included."""
        return sum(op.kind in kinds for ops in self.computations.values() for op in ops.values())


def parse(text: str) -> Module:
    """Reads the text of a compiled program."""
    computations, entry, ops = {}, "", {}
    for line in text.splitlines():
        if header := re.match(r"(ENTRY )?%([\w.\-]+) .*\{$", line):
            ops = computations[header[2]] = {}
            entry = header[2] if header[1] else entry
        elif found := re.match(r"\s+(?:ROOT )?%([\w.\-]+) = (.*?) ([\w\-]+)\((.*)", line):
            name, shape, kind, rest = found.groups()
            operands = tuple(re.findall(r"%([\w.\-]+)", rest.split(")")[0]))
            if target := re.search(r'custom_call_target="([^"]*)"', rest):
                kind = target[1]
            ops[name] = Op(name, kind, shape, operands, rest)
    return Module(computations, entry)


# --- What a program executes.


def total(module: Module, cost: Callable[[str, Op], float]) -> tuple[float, int]:
    """A cost added up over the ops of a program, as often as they run.

    A loop's body counts as often as the loop turns, of a conditional the dearest branch counts.

    Args:
      module: the program.
      cost: of one op, `(computation, op) -> cost`. Kernels are one op: what is in them isn't asked.

    Returns:
      The sum, and how many loops turn as often as data says: each of them is counted once.
    """

    def of(computation: str) -> tuple[float, int]:
        parts = []
        for op in module.computations[computation].values():
            if op.kind == "while":
                trips = trip_count(module, computation, op)
                inside = [of(name) for name in op.called("body", "condition")]
                parts += [(value * (trips or 1), loops) for value, loops in inside]
                parts.append((0, trips is None))
            elif op.kind == "conditional":
                branches = "branch_computations", "true_computation", "false_computation"
                parts.append(max(of(name) for name in op.called(*branches)))
            elif op.kind in ("call", "async-start"):
                parts += [of(name) for name in op.called("to_apply", "calls")]
            parts.append((cost(computation, op), 0))
        return sum(value for value, _ in parts), sum(loops for _, loops in parts)

    return of(module.entry)


def trip_count(module: Module, computation: str, loop: Op) -> int | None:
    """How often a `while` turns, or None where that is data.

    Either the compiler has noted it, or the condition holds a counter, which goes up by one as
    JAX's loops do, against a constant.
    """
    if noted := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest):
        return int(noted[1])
    condition = module.computations[loop.called("condition")[0]]
    test = list(condition.values())[-1]
    if test.kind != "compare" or "direction=LT" not in test.rest:
        return None
    counter, limit = (condition[name] for name in test.operands)
    place = re.search(r"index=(\d+)", counter.rest)
    ops = module.computations[computation]
    start = ops.get(loop.operands[0])
    if start is None or start.kind != "tuple" or place is None:
        return None
    first, last = _constant(ops, start.operands[int(place[1])]), _constant(condition, limit.name)
    return None if first is None or last is None else max(last - first, 0)


def _constant(ops: dict[str, Op], name: str) -> int | None:
    op = ops[name]
    while op.kind in ("copy", "bitcast"):
        op = ops[op.operands[0]]
    found = re.match(r"(-?\d+)\)", op.rest) if op.kind == "constant" else None
    return int(found[1]) if found else None


def estimated_cycles(_: str, op: Op) -> int:
    """The compiler's own estimate for an op, for `total`."""
    found = re.search(r'"estimated_cycles":"(\d+)"', op.rest)
    return int(found[1]) if found else 0


def exec_time_us(_: str, op: Op) -> float:
    """The time of a GPU's kernel by XLA's cost model, for `total`.

    The second time that is noted for each kernel is another model's.
    """
    found = re.search(r'"exec_time_us":([\d.e+\-]+)', op.rest)
    return float(found[1]) if found else 0.0


# --- A TPU's memory.


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
            done = next(_leaves(op.shape))
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
        return _bytes(op.shape) if _hbm(source.shape) else _read(ops, source.name)
    if op.kind in ("bitcast", "ConcatBitcast"):
        return sum(_read(ops, operand) for operand in op.operands)
    return 0


def _leaves(shape: str) -> Iterator[str]:
    """The arrays of a printed shape."""
    return (found[0] for found in re.finditer(r"\w+\[[\d,]*\](\{[^}]*\})?", shape))


def _hbm(shape: str) -> int:
    return sum(_bytes(leaf) for leaf in _leaves(shape) if "S(" not in leaf)


def _bytes(leaf: str) -> int:
    dtype, dims = re.findall(r"(\w+)\[([\d,]*)\]", leaf)[0]
    return math.prod(int(dim) for dim in dims.split(",") if dim) * _SIZES.get(dtype, 0)


# --- A TPU's kernels.


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
