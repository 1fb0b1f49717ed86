"""What a compiler says that its program costs, read from the program's text.

`parse` reads an optimised HLO module as XLA prints it, `total` adds up a cost over what a program
executes, and `collectives` are what its devices send each other.
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
FREE |= {"copy-start", "copy-done", "slice-start", "slice-done", "after-all", "partition-id"}

COLLECTIVES = {"all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute"}
COLLECTIVES |= {"collective-broadcast", "ragged-all-to-all"}
_BRANCHES = "branch_computations", "true_computation", "false_computation"


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
                parts.append(max(of(name) for name in op.called(*_BRANCHES)))
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


# --- Arrays.


def arrays(shape: str) -> Iterator[str]:
    """The arrays of a printed shape, which may be a tuple's."""
    return (found[0] for found in re.finditer(r"\w+\[[\d,]*\](\{[^}]*\})?", shape))


def dims(array: str) -> list[int]:
    """The dimensions of a printed array."""
    return [int(dim) for dim in re.findall(r"\[([\d,]*)\]", array)[0].split(",") if dim]


def nbytes(shape: str) -> int:
    """The bytes of a printed array, or of all in a tuple."""
    return sum(
        math.prod(dims(array)) * _SIZES.get(array.split("[")[0], 0) for array in arrays(shape)
    )


# --- What devices send each other.


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of a program.

    Attributes:
      kind: such as `all-reduce`.
      nbytes: of the whole: what is reduced, or what is gathered.
      times: how often a run of the program has it.
    """

    kind: str
    nbytes: int
    times: int


def collectives(module: Module) -> list[Collective]:
    """All collectives of a program, those inside of fusions and loops included.

    A loop that turns as often as data says counts once, of a conditional every branch. What a TPU
    sends while several kernels compute stands in each kernel of that chain, and counts once.
    """
    chained = set()

    def inside(computation: str, times: int) -> Iterator[Collective]:
        ops = module.computations[computation]
        for op in ops.values():
            kind = op.kind.removesuffix("-done")
            if kind in COLLECTIVES:
                if chain := re.search(r'channel_id=(\d+).*chain_id="\d+"', op.rest):
                    if chain[1] in chained:
                        continue
                    chained.add(chain[1])
                # A `-done` takes its `-start`, which holds both what went in and what comes out.
                taken = 0 if kind != op.kind else sum(nbytes(ops[x].shape) for x in op.operands)
                yield Collective(kind, max(nbytes(op.shape), taken), times)
            elif op.kind == "while":
                trips = trip_count(module, computation, op) or 1
                yield from inside(op.called("body")[0], times * trips)
            elif op.kind in ("fusion", "call", "async-start", "conditional"):
                for name in op.called("calls", "to_apply", *_BRANCHES):
                    yield from inside(name, times)

    return list(inside(module.entry, 1))


# --- A GPU's kernels.


def traffic(ops: dict[str, Op], op: Op) -> int:
    """The bytes that an op of a GPU's program reads and writes at least."""
    return nbytes(op.shape) + sum(nbytes(ops[name].shape) for name in set(op.operands))


def convolution_flops(ops: dict[str, Op], op: Op) -> int:
    """The operations of a convolution that cuDNN does; 0 of another op."""
    if not op.kind.startswith("__cudnn$conv"):
        return 0
    first, second = (next(arrays(ops[name].shape)) for name in op.operands[:2])
    result = next(arrays(op.shape))
    if "BackwardFilter" in op.kind:
        kernel, output = result, second
    elif "BackwardInput" in op.kind:
        kernel, output = second, first
    else:
        kernel, output = second, result
    # Of the kernel's axes all but that of the output's channels are summed over.
    labels = re.findall(r"dim_labels=\w+?_(\w+)->", op.rest)[0]
    summed = [dim for label, dim in zip(labels, dims(kernel), strict=True) if label != "o"]
    return 2 * math.prod(dims(output)) * math.prod(summed)
