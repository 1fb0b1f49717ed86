"""Writes TFDS sets as ArrayRecord, the form that training reads.

Download and write a set (needs `pip install ".[prepare]"`, which brings TensorFlow):

    python -m inputs.prepare --name=cifar10 --data_dir=DIR

Rewrite a set that was prepared as TFRecord, beside the old files, or under another `--data_dir`
(needs no TensorFlow):

    python -m inputs.prepare --from_dir=DIR/NAME/VERSION
"""

import argparse
import importlib.util
import json
import os
import sys

import tensorflow_datasets as tfds
from etils import epath

from inputs.prepared_info import read_info
from inputs.reading import DataError, open_file, read_file


def download(name: str, data_dir: str | None) -> str:
    """Downloads a TFDS set and writes it as ArrayRecord; returns its folder.

    Raises:
      DataError: TensorFlow is missing, TFDS knows no such set, or the set has to be downloaded by
        hand first.
    """
    missing = [m for m in ("tensorflow", "importlib_resources") if not importlib.util.find_spec(m)]
    if missing:
        raise DataError(
            f"writing a TFDS set needs {' and '.join(missing)}, which training does not: run"
            ' `pip install ".[prepare]"`, best in an environment of its own.'
        )
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
        builder.download_and_prepare()
    except tfds.core.DatasetNotFoundError as error:
        raise DataError(f"TFDS has no set {name!r}: see tfds.list_builders().") from error
    except AssertionError as error:  # how TFDS says that files must be fetched by hand
        if "manual" not in str(error).lower():
            raise
        raise DataError(f"{name} has to be downloaded by hand first: {error}") from error
    return str(builder.data_dir)


def rewrite(from_dir: str, data_dir: str | None = None) -> str:
    """Rewrites a TFRecord folder as ArrayRecord, byte for byte; returns the folder written.

    Without `data_dir` the new files go beside the old ones and dataset_info.json names both forms,
    as `tfds convert_format` does (which needs Apache Beam). Shards appear under their final names
    only when whole, and the metadata last, so an interrupted run is simply run again.

    Raises:
      DataError: `from_dir` holds no TFRecord set, or a file is damaged or incomplete.
    """
    source = epath.Path(from_dir).expanduser()
    if not (source / "dataset_info.json").exists() or not (source / "features.json").exists():
        raise DataError(
            f"{source} holds no prepared TFDS set: name the folder with dataset_info.json, as"
            " DIR/NAME/VERSION."
        )
    info = read_info(str(source))
    if info.formats[0] != "tfrecord":
        raise DataError(f"{source} is in {info.formats[0]} form: only tfrecord is rewritten.")
    target, content = source, dict(info.content)
    if data_dir is not None:
        parts = [content["name"], content.get("configName", ""), content["version"]]
        target = epath.Path(data_dir).expanduser().joinpath(*filter(None, parts))
        target.mkdir(parents=True, exist_ok=True)

    new = info.splits("array_record", str(target))
    for name, split in info.splits("tfrecord").items():
        for old_path, new_path, length in zip(
            split.filepaths, new[name].filepaths, split.shard_lengths, strict=True
        ):
            _rewrite_shard(old_path, new_path, length)

    if target == source:
        others = set(content.get("alternativeFileFormats", [])) | {"array_record"}
        content |= {"fileFormat": "tfrecord", "alternativeFileFormats": sorted(others)}
    else:
        content["fileFormat"] = "array_record"
        content.pop("alternativeFileFormats", None)
        for path in source.iterdir():  # features.json and the class names
            if path.suffix in (".json", ".txt"):
                (target / path.name).write_bytes(read_file(str(path)))
    partial = target / "dataset_info.json.partial"
    partial.write_text(json.dumps(content, indent=2))
    partial.replace(target / "dataset_info.json")
    return str(target)


def _rewrite_shard(source: epath.Path, target: epath.Path, length: int) -> None:
    import grain
    from array_record.python.array_record_module import ArrayRecordWriter

    if target.exists():
        return
    with open_file(os.fspath(source), None):
        pass  # grain would wait for a pipe
    partial = target.with_name(target.name + ".partial")
    # TFDS's own choice: one record a group, so that a record is read alone.
    writer = ArrayRecordWriter(os.fspath(partial), "group_size:1")
    written = 0
    try:
        for record in grain.experimental.TFRecordIterDataset(os.fspath(source)):
            writer.write(record)
            written += 1
            if written > length:  # zeros without end are records, too
                break
    # The last two where a length is damaged.
    except (OSError, ValueError, OverflowError, MemoryError) as error:
        raise DataError(f"{source} cannot be read ({error}): copy or prepare it again.") from error
    finally:
        writer.close()
    if written != length:
        found = "more" if written > length else written
        raise DataError(
            f"{source} holds {found} examples instead of {length}: copy or prepare it again."
        )
    partial.replace(target)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code, 2 for anything the user has to put right."""
    parser = argparse.ArgumentParser(
        prog="python -m inputs.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--name", help="TFDS name: cifar10, name/config or name:1.0.0")
    what.add_argument("--from_dir", help="a prepared .../NAME/[CONFIG/]VERSION in TFRecord form")
    parser.add_argument("--data_dir", help="where to write")
    args = parser.parse_args(argv)
    try:
        if args.name:
            folder = download(args.name, args.data_dir)
        else:
            folder = rewrite(args.from_dir, args.data_dir)
    except DataError as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 2
    print(f"Wrote {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
