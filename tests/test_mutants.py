"""What counts as a mutant, of `make mutants`."""

import pytest
from cosmic_ray.mutating import mutate_code
from cosmic_ray.work_db import use_db

import mutants

SOURCE = '''
def f(x: int | None, *, low=0.5, **others) -> int | None:
    """Takes 3."""
    if x is None:
        raise ValueError("x + 1 must be at least 2")
    others.update(zip([x], [low], strict=True))
    x |= max(x, low)
    return x
'''


@pytest.mark.parametrize(
    "old, new",
    [
        ("x: int | None", "x: int & None"),
        ("-> int | None", "-> int & None"),
        (", *, low", ", /, low"),
        ('"x + 1 must be at least 2"', "1"),
        ("strict=True", "strict=False"),
        ("x is None", "not x is not None"),
    ],
)
def test_what_no_test_can_notice_is_no_mutant(old, new):
    assert mutants.essence(SOURCE.replace(old, new)) == mutants.essence(SOURCE)


def test_what_is_not_python_is_no_mutant():
    assert mutants.essence("x = = 1") is None


def test_each_place_has_one_mutant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = tmp_path / "f.py"
    module.write_text(SOURCE)
    with use_db(tmp_path / "session") as session:
        mutants.make_mutants(module, session)
        made = sorted(
            (item.mutations[0].start_pos[0], item.mutations[0].operator_name.partition("/")[2])
            for item in session.pending_work_items
        )
    assert made == [
        (2, "NumberReplacer"),
        (4, "ReplaceComparisonOperator_Is_IsNot"),
        (6, "RemoveStatement"),
        (7, "RemoveStatement"),
        (7, "SwapName"),
    ]


def test_own_operators():
    removed = mutate_code(SOURCE, mutants.RemoveStatement(), 1)
    assert "    pass\n    return x\n" in removed
    assert "x |= min(x, low)" in mutate_code(SOURCE, mutants.SwapName(), 0)
