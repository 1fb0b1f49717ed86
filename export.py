"""Exports a run's network to files that need none of this code: docs/export.md.

    python export.py runs/scenes scenes
    python export.py runs/scenes scenes --checkpoint best --onnx

Writes OUT/model.jax, a jax.export artefact for CPU, CUDA and TPU with the weights inside;
OUT/predict.json, which says what it takes and gives; and with --onnx OUT/model.onnx. `predict.py
--workdir OUT` predicts with it. Exit codes: 0 done, 2 bad input, 4 disk full or not to be written
to.
"""

from absl import flags
from etils import epath

from exporting import card, program
from exporting.onnx_model import to_onnx
from inputs import memory
from inputs.images import DataError
from prediction import open_run
from prediction.trained import TrainedRun
from training import config as config_lib
from training.config import ConfigError
from training.files import replacing, writing


def main():
    """The command: its flags, and what they say."""
    checkpoint = flags.DEFINE_string("checkpoint", "latest", "latest, best, or a step.")
    checkpoint_dir = flags.DEFINE_string(
        "checkpoint_dir", None, "Where the checkpoints are. Default: WORKDIR/checkpoints."
    )
    onnx = flags.DEFINE_bool("onnx", False, "Write model.onnx too.")

    def command(argv) -> int:
        memory.keep_freed()
        if len(argv) != 3:
            raise ConfigError("give the run's folder and the one to write: export.py WORKDIR OUT")
        workdir, out = map(epath.Path, argv[1:])
        if (out / "config.json").exists():
            raise ConfigError(f"{out} holds a training run: give another folder to write to")
        run = open_run(workdir, checkpoint.value, checkpoint_dir=checkpoint_dir.value)
        if not isinstance(run, TrainedRun):
            raise ConfigError(f"{workdir} is exported already: give the workdir of its run")
        sizes = export(run, out, name=workdir.name, onnx=onnx.value)
        print(f"exported the {run.weights}")
        for file, size in sizes.items():
            print(f"{out / file}: {size:,} bytes")
        return 0

    config_lib.run(command, DataError)


def export(run: TrainedRun, out: epath.Path, *, name: str, onnx: bool = False) -> dict[str, int]:
    """Writes a run's network into a folder.

    Args:
      run: see `open_run`.
      out: the folder; what it holds of an export before is replaced.
      name: of the run's folder.
      onnx: whether to write ONNX too.

    Returns:
      The bytes of each file.

    Raises:
      ConfigError: its task cannot be exported, or with `onnx` not be converted.
      WriteError: the folder cannot be written to.
    """
    exported = program.to_jax(run.task, run.variables)
    try:
        contents = {card.MODEL: bytes(exported.serialize())}
    except ImportError as error:
        raise ConfigError(f"a package is missing, which the extra train has: {error}") from error
    about = {
        card.MODEL: {
            "platforms": list(exported.platforms),
            "calling_convention_version": exported.calling_convention_version,
            "computes_in": run.task.config.dtype,
        }
    }
    if onnx:
        model = to_onnx(run.task, run.variables)
        contents[card.ONNX] = model.SerializeToString()
        opset = next(x.version for x in model.opset_import if not x.domain)
        about[card.ONNX] = {"opset": opset, "computes_in": "float32"} | card.versions("jax2onnx")
    for file, content in contents.items():
        about[file] |= {"bytes": len(content), "sha256": card.sha256(content)}
    content = card.describe(run.task, exported, step=run.step, workdir=name, files=about)
    contents[card.NAME] = card.to_text(content).encode()

    with writing(out):
        for file in (card.NAME, card.ONNX):  # of an export before, that is none until all is there
            (out / file).unlink(missing_ok=True)
    for file, content in contents.items():
        with replacing(out / file) as draft:
            draft.write_bytes(content)
    return {file: len(content) for file, content in contents.items()}


if __name__ == "__main__":
    main()
