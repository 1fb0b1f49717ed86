"""The short form of `make fuzz`, and that it would notice."""

import pytest

from fuzz import cases
from fuzz.cases import FAILED, READ, REFUSED, Case, Wrong, judge
from fuzz.forms import FORMS, make
from inputs.images import DataError


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")  # Pillow's
@pytest.mark.parametrize("form", FORMS)
def test_broken_inputs_are_refused_skipped_or_read_properly(form, tmp_path):
    for number in range(max(2, FORMS[form][1] // 25)):
        folder = tmp_path / str(number)
        folder.mkdir()
        outcome, detail = judge(make(form, number, folder))
        assert outcome != FAILED, f"{form} {number}: {detail}"


def test_what_fails_is_noticed(monkeypatch):
    monkeypatch.setattr(cases, "SECONDS", 0.2)
    monkeypatch.setattr(cases, "BYTES", 2**24)

    def outcome(read):
        return judge(Case(read, ("a.png",)))

    def raising(error):
        def read():
            raise error

        return read

    def busy():
        while True:
            pass

    assert outcome(lambda: READ) == (READ, "")
    assert outcome(raising(DataError("a.png is none")))[0] == REFUSED
    for read, reason in (
        (raising(DataError("something is wrong")), "does not name the file: something is wrong"),
        (raising(DataError("a.png" * 2000)), "a refusal of 10000 letters"),
        (raising(KeyError("x")), "KeyError at test_fuzz.py"),
        (raising(Wrong("has 3")), "Wrong at test_fuzz.py"),
        (busy, "more than 0.2 s"),
        (lambda: bytearray(2**26) and READ, "GiB"),
    ):
        found, detail = outcome(read)
        assert found == FAILED and reason in detail


def test_inputs_of_a_number_are_the_same_each_time(tmp_path):
    texts = []
    for name in "ab":
        (tmp_path / name).mkdir()
        make("coco json", 7, tmp_path / name)
        texts.append((tmp_path / name / "annotations" / "instances_train.json").read_bytes())
    assert texts[0] == texts[1]
