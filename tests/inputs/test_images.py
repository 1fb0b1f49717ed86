"""Decoding what is needed: the same pixels, or fewer of them."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from inputs import images, transforms
from inputs.images import DataError, EncodedImage, decode_image, image_size, read_image
from inputs.memory import keep_freed
from inputs.pipeline import eval_batches, train_batches
from inputs.sources import classification_source
from photos import encoded, photo

BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR


def pillow(data, mode="RGB"):
    return np.asarray(Image.open(io.BytesIO(data)).convert(mode))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"subsampling": 2}, {"progressive": True}])
def test_jpegs_have_pillows_pixels(mode, options):
    data = encoded(Image.fromarray(photo(45, 67)).convert(mode), **options)
    np.testing.assert_array_equal(decode_image(data, "a.jpg"), pillow(data))
    np.testing.assert_array_equal(decode_image(data, "a.jpg", 1)[..., 0], pillow(data, "L"))


def test_a_jpeg_of_too_many_pixels_is_refused(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 40 * 30)
    with pytest.raises(DataError, match=r"a.jpg cannot be decoded \(it has 80 x 60 pixels, more"):
        decode_image(encoded(photo(80, 60)), "a.jpg")


def test_the_head_alone_tells_the_shape():
    data = encoded(photo(45, 67))
    assert EncodedImage(data[:700], "a.jpg").shape == (45, 67, 3)
    assert EncodedImage(data, "a.jpg", 1).shape == (45, 67, 1)
    with pytest.raises(DataError, match="a.jpg cannot be decoded"):
        EncodedImage(b"nothing", "a.jpg").shape  # noqa: B018


@pytest.mark.parametrize(
    ("side", "factor"), [(20, 1), (39, 1), (40, 2), (79, 2), (80, 4), (160, 8), (400, 8)]
)
def test_the_scale_is_the_least_that_leaves_the_size(side, factor, monkeypatch):
    asked, jpeg = [], images._jpeg
    monkeypatch.setattr(images, "_jpeg", lambda data, f=1: asked.append(f) or jpeg(data, f))
    box = slice(3, 3 + side), slice(5, 5 + 2 * side)
    part = EncodedImage(encoded(photo(420, 820)), "a.jpg").reduced(box, 20)
    assert asked == [factor]
    assert min(part.shape[:2]) >= min(20, side)
    assert part.shape[0] == -(-(3 + side) // factor) - 3 // factor


def test_a_reduced_part_shows_what_the_box_holds():
    image = photo(400, 600)
    box = slice(41, 400), slice(100, 503)
    part = EncodedImage(encoded(image, quality=95), "a.jpg").reduced(box, 50)
    want = transforms.resize(image[box], part.shape[:2]).astype(float)
    assert np.abs(part - want).mean() < 1.5


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_what_cannot_be_reduced_is_whole(kind):
    image = Image.fromarray(photo(200, 200)).convert("CMYK" if kind == "JPEG" else "RGB")
    data = encoded(image, kind)
    part = EncodedImage(data, "a").reduced((slice(0, 200), slice(10, 190)), 20)
    np.testing.assert_array_equal(part, pillow(data)[:, 10:190])


def test_a_damaged_jpeg_is_named_wherever_it_is_decoded():
    image = EncodedImage(encoded(photo(200, 200))[:-900], "cut.jpg")
    for decode in (image.decode, lambda: image.reduced((slice(0, 200), slice(0, 200)), 20)):
        with pytest.raises(DataError, match=r"cut.jpg cannot be decoded"):
            decode()


def turned(orientation, kind="JPEG", size=(40, 60)):
    """An image file with EXIF's orientation, and as Pillow shows it upright."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encoded(photo(*size), kind, exif=exif.tobytes())
    with Image.open(io.BytesIO(data)) as image:
        return data, np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_upright_where_asked_for(orientation, kind, tmp_path):
    data, upright = turned(orientation, kind)
    assert upright.shape[:2] == ((40, 60) if orientation < 5 else (60, 40))
    (tmp_path / "a").write_bytes(data)
    path = str(tmp_path / "a")
    np.testing.assert_array_equal(decode_image(data, "a", upright=True), upright)
    np.testing.assert_array_equal(read_image(path, 1, upright=True).shape, (*upright.shape[:2], 1))
    np.testing.assert_array_equal(read_image(path), pillow(data))  # boxes are of these pixels
    image = EncodedImage(data, "a", upright=True)
    np.testing.assert_array_equal(image.decode(), upright)
    assert image.shape == upright.shape
    assert image_size(data, "a", upright=True) == image_size(path, "a", upright=True)
    assert image_size(path, "a", upright=True) == upright.shape[:2]
    assert image_size(path, "a") == (40, 60)


@pytest.mark.parametrize("before", [b"\xff\xe2\xff\xff" + bytes(2**16 - 3), b"\xff", b"\xff\xff"])
def test_exif_is_found_behind_other_segments_and_fillings(before):
    data, upright = turned(6)
    start = data.index(b"Exif\0\0") - 4
    data = data[:start] + before + data[start:]
    np.testing.assert_array_equal(decode_image(data, "a", upright=True), upright)
    assert image_size(data, "a", upright=True) == (60, 40)


def test_a_tiff_is_upright_in_any_case():
    data, upright = turned(6, "TIFF")
    for image in (EncodedImage(data, "a"), EncodedImage(data, "a", upright=True)):
        assert image.shape == image.decode().shape == upright.shape


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_reduced_part_is_of_the_upright_photograph(orientation):
    data, upright = turned(orientation, size=(400, 600))
    box = slice(41, 399), slice(17, 390)
    part = EncodedImage(data, "a.jpg", upright=True).reduced(box, 50)
    want = transforms.resize(upright[box], part.shape[:2]).astype(float)
    assert len(part) < 100 and np.abs(part - want).mean() < 2


@pytest.mark.parametrize("value", [0, 9, 2**16 - 1])
def test_an_orientation_that_is_none_is_upright(value):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    data = encoded(photo(), exif=exif.tobytes())
    np.testing.assert_array_equal(decode_image(data, "a", upright=True), decode_image(data, "a"))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of what it passes over
@pytest.mark.parametrize("at", [10, 14, 18, 22])
def test_damaged_exif_spoils_no_photograph(at):
    data = bytearray(turned(6)[0])
    start = data.index(b"Exif\0\0")
    data[start + at : start + at + 4] = b"\xff\xfe\xfd\xfc"
    decode_image(bytes(data), "a", upright=True)


@pytest.mark.parametrize("resampling", [BICUBIC, BILINEAR])
@pytest.mark.parametrize("shape", [(300, 280, 3), (50, 60, 3), (33, 70, 1), (1, 1, 3), (9, 9, 4)])
def test_resizing_quickly_is_resizing(resampling, shape):
    height, width, channels = shape
    rgba = np.dstack([photo(height, width), photo(height, width, seed=1)[..., :1]])
    image = np.ascontiguousarray(rgba[..., :channels])
    quick = transforms.resize_quickly(image, 64, resampling)
    want = transforms.resize(image, 64, resampling)
    assert quick.shape == want.shape and quick.dtype == np.uint8
    difference = np.abs(quick.astype(int) - want)
    assert (difference > 1).mean() < 2e-3 and (channels < 4 or difference.max() == 0)


def test_without_the_package_resizing_quickly_is_resizing_exactly(monkeypatch):
    monkeypatch.setattr(transforms, "simd", None)
    image = photo(90, 80)
    want = transforms.resize(image, 64)
    np.testing.assert_array_equal(transforms.resize_quickly(image, 64, BICUBIC), want)


@pytest.mark.parametrize("kind", transforms.KINDS)
@pytest.mark.parametrize("train", [False, True])
def test_encoded_images_give_the_pixels_of_decoded_ones(kind, train):
    image = EncodedImage(encoded(photo(200, 260)), "a.jpg")
    exact = transforms.make_transform(kind, image_size=50, train=train)
    quick = transforms.make_transform(kind, image_size=50, train=train, quick=True)
    for seed in range(20):
        want, same, other = (
            transform(given, np.random.default_rng(seed)).astype(int)
            for transform, given in ((exact, image.decode()), (exact, image), (quick, image))
        )
        np.testing.assert_array_equal(same, want)
        assert np.abs(other - want).mean() < 2.5
        if not train or kind in ("small", "none"):
            np.testing.assert_array_equal(other, want)
        # What is decoded, as of a source that keeps its images, is never hurried.
        np.testing.assert_array_equal(
            quick(image.decode(), np.random.default_rng(seed)).astype(int), want
        )


def test_what_is_found_damaged_when_decoded_is_skipped_alike(tmp_path):
    for index in range(6):
        path = tmp_path / "train" / "a" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = encoded(photo(80, 90, seed=index))
        path.write_bytes(data[:-200] if index == 2 else data)
    transform = transforms.on_image(
        transforms.make_transform("imagenet", image_size=20, train=True)
    )
    found = []
    for decode in (True, False):
        source = classification_source("image_folder", str(tmp_path), "train", decode=decode)
        options = {"batch_size": 6, "on_error": "skip", "num_threads": 1}
        batches = train_batches(source, transform, seed=0, **options)
        found.append([next(batches), next(batches), *eval_batches(source, transform, **options)])
    for eager, lazy in zip(*found, strict=True):
        for name in eager:
            np.testing.assert_array_equal(eager[name], lazy[name], err_msg=name)
    assert found[1][0]["skipped"].sum() == found[1][2]["skipped"].sum() == 1


def test_worker_processes_keep_freed_memory_too(monkeypatch):
    import grain

    called = {}
    monkeypatch.setattr(
        grain.IterDataset,
        "mp_prefetch",
        lambda data, options, init: called.update(init=init) or data,
    )

    class One:
        class_names = ("a",)

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return {"image": np.zeros((2, 2, 1), np.uint8)}

    train_batches(One(), lambda example, rng: dict(example), batch_size=1, seed=0, num_workers=1)
    kept = []
    monkeypatch.setattr("inputs.pipeline.keep_freed", lambda: kept.append(1))
    called["init"](0, 1)
    assert kept == [1] and callable(keep_freed)


def test_a_folder_of_classes_has_photographs_upright(tmp_path):
    data, upright = turned(6)
    path = tmp_path / "train" / "cat" / "a.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    for decode in (True, False):
        source = classification_source("image_folder", str(tmp_path), "train", decode=decode)
        image = source[0]["image"]
        np.testing.assert_array_equal(image if decode else image.decode(), upright)
