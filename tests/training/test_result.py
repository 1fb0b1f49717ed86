"""What a finished run is said to have come to."""

import importlib.metadata
import json
import pathlib
import platform
import shutil
import subprocess
import types

import jax
import pytest

from training import result as result_lib
from training.config import ConfigError
from training.files import write
from training.result import make_result, report


def record(step, **fields):
    base = {"step": step, "epoch": step / 10, "time/seconds": step + 0.123}
    return base | {name.replace("__", "/"): value for name, value in fields.items()}


def evaluated(step, top1, **fields):
    return record(step, eval__top1=top1, eval__examples=50, **fields)


def test_the_best_is_the_last_of_equals_and_the_final_is_the_last():
    records = [evaluated(1, 50.0), evaluated(2, 70.0), evaluated(3, 70.0)]
    records += [evaluated(4, 60.0), record(5)]
    result = make_result(records, "top1")
    assert result["best"] == {"step": 3, "epoch": 0.3, "top1": 70.0, "examples": 50}
    assert result["final"] == {"step": 4, "epoch": 0.4, "top1": 60.0, "examples": 50}
    assert (result["best_metric"], result["seconds"], result["hosts"]) == ("top1", 5.1, 1)
    assert result["python"] == platform.python_version()
    assert result["versions"]["optax"] == importlib.metadata.version("optax")
    assert result["devices"] == f"{jax.device_count()} x cpu (cpu)"


def test_kept_fractions_are_those_of_the_last_ten_lines():
    early = [
        record(step, kept__group3=0.0, expected_kept__group3=0.0, kept__gone=0.0)
        for step in range(1, 6)
    ]
    late = [
        record(step, kept__group3=0.9 + step / 1000, expected_kept__group3=0.9)
        for step in range(6, 15)
    ]
    # A line that lacks one, as that of an evaluation alone does.
    records = [*early, late[0], record(6.5), *late[1:-1], evaluated(15, 1.0) | late[-1]]
    assert len(records[-10:]) == 10 and records[-10] is late[0]
    kept = make_result(records, "top1")["kept"]
    assert kept == {"group3": {"kept": pytest.approx(0.91), "expected": pytest.approx(0.9)}}


def test_a_person_reads_a_few_lines():
    records = [
        evaluated(1, 70.0),
        evaluated(2, 60.123, kept__group4=0.91234, expected_kept__group4=0.9),
    ]
    workdir = pathlib.Path("runs") / "here"
    assert report(make_result(records, "top1"), workdir).splitlines() == [
        "top1 60.12 at the end, best 70.00 at step 1; 50 examples; 2 s",
        "group4: kept 0.9123, expected 0.9000",
        f"plots: {workdir / 'plots'}   result: {workdir / 'result.json'}",
    ]


@pytest.mark.parametrize(
    "data", [b"\xff", b"[1]", b"{}", b"{", b'{"best_metric": 3}', b'{"best_metric": "top1"}']
)
def test_a_damaged_result_is_named(tmp_path, data):
    path = tmp_path / "result.json"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=f"{path} is damaged .*: remove it, and the command"):
        report(result_lib.read(path), tmp_path)


def test_a_result_is_read_as_it_was_written(tmp_path):
    result = make_result([evaluated(1, 70.0)], "top1")
    write(tmp_path / "result.json", json.dumps(result))
    assert result_lib.read(tmp_path / "result.json") == result
    for name in ("final", "best", "kept", "seconds"):
        write(tmp_path / "result.json", json.dumps(result | {name: None}))
        with pytest.raises(ConfigError, match="is damaged"):
            report(result_lib.read(tmp_path / "result.json"), tmp_path)


@pytest.mark.parametrize("error", [OSError("no git"), subprocess.CalledProcessError(128, "git")])
def test_the_commit_is_unknown_without_git(monkeypatch, error):
    def run(*_, check, **__):
        if check or isinstance(error, OSError):
            raise error
        return types.SimpleNamespace(stdout="")

    monkeypatch.setattr(subprocess, "run", run)
    commit = make_result([evaluated(1, 1.0)], "top1")["commit"]
    assert commit == "unknown: not a git checkout"


@pytest.mark.skipif(shutil.which("git") is None, reason="of git")
def test_the_commit_is_gits(monkeypatch, tmp_path):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "file").write_text("1")
    for words in (["init"], ["add", "file"], ["commit", "-m", "one"]):
        git(*words)
    monkeypatch.setattr(result_lib, "__file__", str(tmp_path / "result.py"))
    command = ["git", "rev-parse", "--short=12", "HEAD"]
    found = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    head = found.stdout.strip()
    assert make_result([evaluated(1, 1.0)], "top1")["commit"] == head
    (tmp_path / "file").write_text("2")
    assert make_result([evaluated(1, 1.0)], "top1")["commit"] == f"{head}-dirty"
