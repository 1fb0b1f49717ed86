"""How many images a second a core reads, decodes and augments: ours, PyTorch's and TensorFlow's.

    python -m benchmarks.input                            # photograph-like JPEGs of its own
    python -m benchmarks.input --size 1000x750            # larger ones
    python -m benchmarks.input --images DIR               # DIR/train/CLASS/*.jpg, of one's own

ImageNet's training augmentation, a random resized crop to 224x224 and a flip, to batches of uint8,
by 1 and 2 workers that are held to as many cores. PyTorch takes part where torch and torchvision
are installed, tf.data where tensorflow is. Each figure is of a process of its own, in random order,
round by round. "For each core" is images over the seconds of CPU time of all threads and processes
together: other work on the machine hardly changes it.
"""

import argparse
import collections
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from absl import flags
from PIL import Image

from benchmarks.timing import cpu_seconds_of
from inputs.memory import keep_freed
from inputs.pipeline import train_batches
from inputs.sources import classification_source
from inputs.transforms import make_transform, on_image

SIZE = 224
BATCH = 32
WARM_UP, MEASURED = 5, 20  # batches; what is read ahead at the start is as much as at the end

PACKAGES = {
    "pillow": "PIL",
    "simplejpeg": "simplejpeg",
    "cykooz.resizer": "cykooz_resizer",
    "grain": "grain",
    "torch": "torch",
    "torchvision": "torchvision",
    "tensorflow": "tensorflow",
}


# --- Ours, as train.py reads.


def ours(folder: str, workers: int, *, processes: bool = False, quick: bool = True) -> Iterator:
    keep_freed()
    if not flags.FLAGS.is_parsed():  # Grain asks them before it starts processes
        flags.FLAGS.mark_as_parsed()
    source = classification_source("image_folder", folder, "train", decode=False)
    transform = make_transform("imagenet", image_size=SIZE, train=True, quick=quick)
    return train_batches(
        source,
        on_image(transform),
        batch_size=BATCH,
        seed=0,
        num_threads=workers,
        num_workers=workers if processes else 0,
    )


# --- The others, as their users write it.


def pytorch(folder: str, workers: int, *, tensors: bool = False, cubic: bool = True) -> Iterator:
    """An ImageFolder behind a DataLoader; with `tensors` decoded and resized by torchvision."""
    torch: Any = importlib.import_module("torch")
    torchvision: Any = importlib.import_module("torchvision")
    v2 = importlib.import_module("torchvision.transforms.v2")
    torch.set_num_threads(1)
    modes = v2.InterpolationMode
    steps = [
        v2.RandomResizedCrop(SIZE, interpolation=modes.BICUBIC if cubic else modes.BILINEAR),
        v2.RandomHorizontalFlip(),
    ]
    options = {}
    if tensors:
        rgb = torchvision.io.ImageReadMode.RGB
        options["loader"] = lambda path: torchvision.io.decode_image(path, rgb)
    else:
        steps.append(v2.PILToTensor())
    data = torchvision.datasets.ImageFolder(f"{folder}/train", v2.Compose(steps), **options)
    sampler = torch.utils.data.RandomSampler(data, num_samples=1 << 30, replacement=True)
    loader = torch.utils.data.DataLoader(data, BATCH, sampler=sampler, num_workers=workers)
    return iter(loader)


def tf_data(folder: str, workers: int, *, antialias: bool = True) -> Iterator:
    """The crop alone is decoded, as in the authors' code, which does not antialias."""
    tf: Any = importlib.import_module("tensorflow")
    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_inter_op_parallelism_threads(workers)
    tf.config.threading.set_intra_op_parallelism_threads(1)

    def read(path):
        encoded = tf.io.read_file(path)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(encoded),
            tf.zeros([1, 0, 4]),
            min_object_covered=0.1,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([begin[:2], size[:2]], 0)
        image = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
        image = tf.image.resize(image, (SIZE, SIZE), "bicubic", antialias=antialias)
        image = tf.image.random_flip_left_right(image)
        return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)

    files = tf.data.Dataset.list_files(f"{folder}/train/*/*", shuffle=True).cache().repeat()
    options = tf.data.Options()
    options.threading.private_threadpool_size = workers
    batches = files.map(read, num_parallel_calls=workers).batch(BATCH).prefetch(2)
    return iter(batches.with_options(options))


# Row: what makes the batches, with which options, and the package that it needs.
CONTENDERS: dict[str, tuple[Callable[..., Iterator], dict[str, bool], str]] = {
    "ours, threads": (ours, {}, "grain"),
    "ours, processes": (ours, {"processes": True}, "grain"),
    "ours, threads, quick_crops False": (ours, {"quick": False}, "grain"),
    "PyTorch DataLoader, Pillow": (pytorch, {}, "torchvision"),
    "PyTorch DataLoader, Pillow, bilinear": (pytorch, {"cubic": False}, "torchvision"),
    "PyTorch DataLoader, torchvision.io": (pytorch, {"tensors": True}, "torchvision"),
    "tf.data": (tf_data, {}, "tensorflow"),
    "tf.data, not antialiased": (tf_data, {"antialias": False}, "tensorflow"),
}


# --- Measuring.


def cpu_seconds() -> float:
    """Of this process and its children, ended or not, since they began."""
    children = multiprocessing.active_children()
    return sum(os.times()[:4]) + sum(cpu_seconds_of(one.pid) for one in children if one.pid)


def measure(batches: Iterator) -> dict[str, float]:
    """Images a second by the clock, and by the time of the CPU."""
    for _ in range(WARM_UP):
        next(batches)
    start, used = time.perf_counter(), cpu_seconds()
    for _ in range(MEASURED):
        next(batches)
    seconds, used = time.perf_counter() - start, cpu_seconds() - used
    return {"clock": MEASURED * BATCH / seconds, "core": MEASURED * BATCH / used}


def child(name: str, folder: str, workers: int):
    """Measures one contender on as many cores as it has workers, and prints it."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:workers])
    make, options, _ = CONTENDERS[name]
    print(json.dumps(measure(make(folder, workers, **options))))


def in_process(name: str, folder: str, workers: int) -> dict[str, float]:
    """`child`, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.input", "--child", name]
    command += ["--images", folder, "--workers", str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


# --- Images.


def texture(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """Noise with the spectrum of photographs, 1 / frequency, in luma and, weaker, in chroma."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = 1.0
    planes = []
    for contrast in (50.0, 18.0, 18.0):
        spectrum = np.fft.rfft2(rng.standard_normal((height, width))) / frequency
        spectrum[0, 0] = 0.0
        plane = np.fft.irfft2(spectrum, (height, width))
        planes.append(np.clip(128 + contrast * plane / plane.std(), 0, 255).astype(np.uint8))
    return Image.fromarray(np.stack(planes, -1), "YCbCr").convert("RGB")


def make_images(folder: pathlib.Path, count: int, size: tuple[int, int]) -> float:
    """Writes JPEGs of quality 92, lying and, a third, standing; returns their mean size in kB.

    Each has eight names: of a few hundred files, shuffling costs more than of a million.
    """
    rng, total = np.random.default_rng(0), 0
    (folder / "train" / "texture").mkdir(parents=True)
    for index in range(count):
        width, height = size if index % 3 else size[::-1]
        path = folder / "train" / "texture" / f"{index}.jpg"
        texture(rng, height, width).save(path, quality=92)
        total += path.stat().st_size
        for copy in range(7):
            os.link(path, path.with_stem(f"{index}_{copy}"))
    return total / count / 1e3


# --- Results.


def table(figures: dict, feed: float) -> list[str]:
    """Rows of medians, with the spread of what a core does, and how many cores `feed` needs."""
    lines = [
        "|  | workers | images/s for each core | least to greatest | images/s | cores for "
        f"{feed:,.0f} images/s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (name, workers), found in figures.items():
        core = [one["core"] for one in found]
        clock = statistics.median(one["clock"] for one in found)
        lines.append(
            f"| {name} | {workers} | {statistics.median(core):.0f} | {min(core):.0f} to "
            f"{max(core):.0f} | {clock:.0f} | {feed / statistics.median(core):.1f} |"
        )
    return lines


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", help="DIR of DIR/train/CLASS/*.jpg, in the place of textures")
    parser.add_argument("--size", default="500x375", help="of the textures, width x height")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    # ResNet-50 on 8 chips of a v5e by the TPU's compiler: experiments/results/input.md.
    parser.add_argument("--feed", type=float, default=10_182, help="images/s to feed")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--child", choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.images, args.workers[0])
        return

    names = [name for name in args.only if importlib.util.find_spec(CONTENDERS[name][2])]
    with tempfile.TemporaryDirectory() as made:
        what = args.images
        if what is None:
            width, height = map(int, args.size.split("x"))
            mean = make_images(pathlib.Path(made), 200, (width, height))
            what = f"200 textures of {args.size} pixels, {mean:.0f} kB"
        cases = [(name, workers) for workers in args.workers for name in names]
        figures = collections.defaultdict(list, {case: [] for case in cases})
        for _ in range(args.rounds):
            for name, workers in random.sample(cases, len(cases)):
                found = in_process(name, args.images or made, workers)
                figures[name, workers].append(found)
                print(f"{name}, {workers}: {found['core']:.0f}", file=sys.stderr, flush=True)
    versions = ", ".join(
        f"{package} {importlib.metadata.version(package)}"
        for package, module in PACKAGES.items()
        if importlib.util.find_spec(module)
    )
    print(
        f"{what}; to {SIZE}x{SIZE}, batches of {BATCH}, medians of {args.rounds} rounds; "
        f"{platform.machine()}, {os.cpu_count()} CPU cores; {versions}\n"
    )
    print("\n".join(table(figures, args.feed)))


if __name__ == "__main__":
    main()
