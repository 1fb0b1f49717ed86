"""Mutation testing: small faults, put into a module one at a time, must fail its tests.

    make mutants                                     # all of MODULES, which takes hours
    make mutants MODULES="detection/boxes.py dropblock/gamma.py"

cosmic-ray makes the faults, in a temporary copy of the working tree, and runs the tests on one
core. A module's session is `runs/mutants/<module>.<digest of its source>.sqlite`: a run that was
stopped goes on where it was. `AGAIN=1` tries the survivors again, for after new tests. Printed for
each module: how many mutants were killed, timed out (which is noticed, too) and survived; and each
survivor as file:line with its diff, unless tests/mutants.toml says why it is harmless. That file
also says which tests are to notice where it is not the test file of the module's name. The exit
status is 1 where an unexplained survivor is left.
"""

import argparse
import ast
import difflib
import hashlib
import importlib.util
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import hypothesis
import parso
import pytest
from cosmic_ray import plugins
from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_code, use_mutation
from cosmic_ray.operators.operator import Operator
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkItem, WorkResult

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "runs" / "mutants"
MODULES = ("dropblock/*.py", "detection/*.py", "training/*.py", "tasks/*.py", "models/drop*.py")

# One sensible replacement for each place, where cosmic-ray has up to eleven.
OPERATORS = {
    "core/ReplaceBinaryOperator_": "Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Mul Mod_FloorDiv"
    " Pow_Mul RShift_LShift LShift_RShift BitOr_BitAnd BitAnd_BitOr BitXor_BitOr",
    "core/ReplaceComparisonOperator_": "Lt_LtE LtE_Lt Gt_GtE GtE_Gt Eq_NotEq NotEq_Eq Is_IsNot"
    " IsNot_Is",
    "core/ReplaceUnaryOperator_Delete_": "USub Invert Not",
    "core/Replace": "TrueWithFalse FalseWithTrue AndWithOr OrWithAnd BreakWithContinue"
    " ContinueWithBreak",
    "core/": "AddNot ExceptionReplacer NumberReplacer RemoveDecorator ZeroIterationForLoop",
    "own/": "RemoveStatement SwapName",
}
NAMES = {prefix + name for prefix, names in OPERATORS.items() for name in names.split()}
SWAPS = {"min": "max", "minimum": "maximum", "any": "all", "argmin": "argmax", "floor": "ceil"}
SWAPS |= {new: old for old, new in SWAPS.items()}
TIMEOUT = "timeout"
MEMORY = 4 * 2**30  # bytes that a mutant may fill
SLOW_IMPORTS = "jax flax.linen flax.nnx optax scipy.stats matplotlib.figure grain orbax.checkpoint"


class RemoveStatement(Operator):
    """Removes a call whose value is not used, or an assignment like `+=`."""

    def mutation_positions(self, node):
        if node.type == "simple_stmt":
            statement = node.children[0]
            operator = statement.children[1] if statement.type == "expr_stmt" else None
            # parso has "=" as an operator too, and an annotated assignment as a node.
            changes = operator is not None and operator.type == "operator" and operator.value != "="
            if changes or statement.type == "atom_expr":
                yield statement.start_pos, statement.end_pos

    def mutate(self, node, index):
        first = node.get_first_leaf()
        node.children[0] = parso.python.tree.Keyword("pass", first.start_pos, first.prefix)
        return node

    @classmethod
    def examples(cls):
        return ()


class SwapName(Operator):
    """Takes the least for the greatest, and the like."""

    def mutation_positions(self, node):
        if node.type == "name" and node.value in SWAPS:
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):
        node.value = SWAPS[node.value]
        return node

    @classmethod
    def examples(cls):
        return ()


plugins.OPERATOR_PROVIDERS["own"] = {"RemoveStatement": RemoveStatement, "SwapName": SwapName}


class _Essence(ast.NodeTransformer):
    """Leaves out annotations and what errors say, and has one form where Python has two."""

    opposite: ClassVar = {
        ast.Eq: ast.NotEq,
        ast.NotEq: ast.Eq,
        ast.Is: ast.IsNot,
        ast.IsNot: ast.Is,
    }

    def visit(self, node):
        for field in ("annotation", "returns"):
            if getattr(node, field, None) is not None:
                setattr(node, field, ast.Constant(None))
        return super().visit(node)

    def visit_arguments(self, node):
        # cosmic-ray takes the "*" before what is given by name for a product.
        self.generic_visit(node)
        node.args = [*node.posonlyargs, *node.args, *node.kwonlyargs]
        node.defaults = [*node.defaults, *filter(None, node.kw_defaults)]
        node.posonlyargs, node.kwonlyargs, node.kw_defaults = [], [], []
        return node

    def visit_keyword(self, node):
        self.generic_visit(node)
        # An assertion that cannot fail.
        return ast.keyword(node.arg, ast.Constant(None)) if node.arg == "strict" else node

    def visit_Raise(self, node):
        if isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
        return node

    def visit_UnaryOp(self, node):
        self.generic_visit(node)
        compare = node.operand
        if isinstance(node.op, ast.Not) and isinstance(compare, ast.Compare):
            opposite = [self.opposite.get(type(operator)) for operator in compare.ops]
            if len(opposite) == 1 and opposite[0]:
                return ast.Compare(compare.left, [opposite[0]()], compare.comparators)
        return node


def essence(source: str) -> str | None:
    """What tests can notice of a module; None where it is not Python."""
    try:
        return ast.dump(_Essence().visit(ast.parse(source)))
    except SyntaxError:
        return None


def mutate(source: str, mutation: MutationSpec) -> str | None:
    """The essence of a mutant."""
    operator = plugins.get_operator(mutation.operator_name)()
    try:
        return essence(mutate_code(source, operator, mutation.occurrence))
    except AttributeError:  # cosmic-ray does not know exceptions with a dot in their name
        return None


def make_mutants(module: Path, session: WorkDB) -> None:
    """Fills a session with the mutants that differ from the module and from one another."""
    init([module], session, {})
    source = module.read_text()
    seen = {None, essence(source)}
    skipped = []
    for item in session.work_items:
        mutation = item.mutations[0]
        # Of a number's two neighbours the higher one only.
        lower = mutation.operator_name == "core/NumberReplacer" and mutation.occurrence % 2
        mutant = None if lower or mutation.operator_name not in NAMES else mutate(source, mutation)
        if mutant in seen:
            skipped.append(item.job_id)
        seen.add(mutant)
    session.set_multiple_results(skipped, WorkResult(WorkerOutcome.SKIPPED))


def tests_of(module: Path, notes: dict) -> list[str]:
    """The files that are to notice a mutant of the module, the quick ones first."""
    mirrored = Path("tests", module.parent, f"test_{module.name}")
    own = [str(mirrored)] if (ROOT / mirrored).exists() else [str(mirrored.parent)]
    return notes["tests"].get(str(module), own)


def attempt(tests: list[str], timeout: float) -> tuple[TestOutcome, str]:
    """Runs tests in a fork of this process, which has imported what takes long, and not more."""
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            # A failure is enough; that it is a small one is no matter.
            hypothesis.settings.load_profile("first failure")
            options = "-x -q -n 0 -p no:cacheprovider --hypothesis-seed=0"
            rewritten = ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
            status = 1
            try:
                status = pytest.main([*options.split(), *rewritten, *tests])
            finally:
                os._exit(status)
        end = time.monotonic() + timeout
        ended = status = 0
        try:
            while not ended and time.monotonic() < end:
                time.sleep(0.01)
                ended, status = os.waitpid(child, os.WNOHANG)
        finally:  # also where this process is stopped
            if not ended:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
        if not ended:
            return TestOutcome.KILLED, TIMEOUT
        output.seek(0)
        outcome = TestOutcome.KILLED if status else TestOutcome.SURVIVED
        return outcome, output.read().decode(errors="replace")


def run(module: Path, session: WorkDB, items: Sequence[WorkItem], tests: list[str]) -> None:
    """Tries mutants, in the working directory."""
    start = time.monotonic()
    outcome, output = attempt(tests, timeout=3600)
    seconds = time.monotonic() - start
    if outcome != TestOutcome.SURVIVED:
        sys.exit(f"the tests of {module} fail without a mutant:\n{output}")
    compiled = Path(importlib.util.cache_from_source(str(module)))
    source = module.read_bytes()
    module.write_text("raise ImportError\n")
    compiled.unlink(missing_ok=True)
    if attempt(tests, timeout=3600)[0] != TestOutcome.KILLED:
        sys.exit(f"{tests} do not import {module}")
    module.write_bytes(source)

    for number, item in enumerate(items, start=1):
        mutation = item.mutations[0]
        operator = plugins.get_operator(mutation.operator_name)()
        # Python looks at a file's size and at its time in whole seconds.
        compiled.unlink(missing_ok=True)
        with use_mutation(module, operator, mutation.occurrence) as (before, after):
            # The first run compiled what a mutant's run mostly finds in the cache.
            outcome, output = attempt(tests, timeout=10 + 2 * seconds)
        diff = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
        result = WorkResult(WorkerOutcome.NORMAL, output, outcome, "\n".join(diff))
        session.set_result(item.job_id, result)
        line = mutation.start_pos[0]
        print(f"{number}/{len(items)} {module}:{line} {outcome.value}", flush=True)


def survivors(session: WorkDB) -> list[tuple[WorkItem, WorkResult]]:
    """The mutants that no test has noticed."""
    return [
        (item, result)
        for item, result in session.completed_work_items
        if result.test_outcome == TestOutcome.SURVIVED
    ]


def report(module: Path, session: WorkDB, notes: dict) -> int:
    """Prints a module's score and its survivors; returns how many are unexplained."""
    tried = [result for _, result in session.results if result.test_outcome]
    timed_out = sum(result.output == TIMEOUT for result in tried)
    alive = survivors(session)
    harmless = {(note["line"], note["becomes"]) for note in notes["harmless"].get(str(module), ())}
    pending = len(session.pending_work_items)
    unexplained, met = [], set()
    for item, result in alive:
        # A decorator goes with the comment above it.
        lines = [line for line in result.diff.splitlines()[2:] if line[1:].lstrip()[:1] != "#"]
        old, new = (
            " ".join(" ".join(line[1:] for line in lines if line[0] == sign).split())
            for sign in "-+"
        )
        met.add((old, new))
        if (old, new) not in harmless:
            unexplained.append((item.mutations[0].start_pos[0], old, new))
    print(
        f"{module}: {len(tried)} mutants, {len(tried) - timed_out - len(alive)} killed, "
        f"{timed_out} timed out, {len(alive)} survived, {len(unexplained)} of them unexplained; "
        f"{pending} to do"
    )
    for line, old, new in sorted(unexplained):
        print(f"{module}:{line}\n  - {old}\n  + {new}")
    for old, _ in sorted(harmless - met if not pending else ()):
        print(f"{module}: tests/mutants.toml explains what did not survive: {old}")
    return len(unexplained)


def copy_tree(folder: Path) -> None:
    """Copies what git has or would take of the working tree."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*", type=Path, help="all by default")
    parser.add_argument("--again", action="store_true", help="try survivors again")
    parser.add_argument("--report", action="store_true", help="run nothing")
    args = parser.parse_args()
    modules = args.modules or [path for glob in MODULES for path in sorted(ROOT.glob(glob))]
    notes = tomllib.loads((ROOT / "tests" / "mutants.toml").read_text())
    RESULTS.mkdir(parents=True, exist_ok=True)
    os.nice(5)
    # So that the temporary copy goes, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": str(RESULTS / "cache"),
        "JAX_PLATFORMS": "cpu",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "OMP_NUM_THREADS": "1",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    }
    for name in SLOW_IMPORTS.split():
        importlib.import_module(name)
    first_failure = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("first failure", phases=first_failure)
    unexplained = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy_tree(Path(folder))
        os.chdir(folder)
        # Before an installed package of this project, in the tests' subprocesses too.
        os.environ["PYTHONPATH"] = folder
        for path in modules:
            module = (ROOT / path).relative_to(ROOT)
            digest = hashlib.sha256(module.read_bytes()).hexdigest()[:8]
            name = f"{'.'.join(module.with_suffix('').parts)}.{digest}.sqlite"
            if not (RESULTS / name).exists():
                # One that was stopped while it was made has another name.
                new = RESULTS / f"{name}.new"
                new.unlink(missing_ok=True)
                with use_db(new) as session:
                    make_mutants(module, session)
                new.rename(RESULTS / name)
            with use_db(RESULTS / name) as session:
                items = session.pending_work_items
                if args.again:
                    items += tuple(item for item, _ in survivors(session))
                if items and not args.report:
                    run(module, session, items, tests_of(module, notes))
                unexplained += report(module, session, notes)
    sys.exit(unexplained > 0)


if __name__ == "__main__":
    main()
