"""The picture holds the masks that were drawn, and says of them what is so."""

import pathlib
import re
import sys

import matplotlib
import matplotlib.colors
import matplotlib.figure
import numpy as np
import pytest
from PIL import Image

from dropblock import block_gamma, expected_keep, show

COMMITTED = pathlib.Path(__file__).parents[2] / "docs" / "dropblock.png"
FLAGS = ["--keep_prob=0.6", "--block_size=3x5", "--map_size=12x16", "--seed=4"]  # of `drawn`


@pytest.fixture(autouse=True)
def no_screen():
    matplotlib.use("agg")


@pytest.fixture(scope="module")
def drawn():
    masks = show.draw_masks(0.6, (3, 5), (12, 16), seed=4)
    features = show.made_up_map((12, 16))
    return masks, show.picture(features, masks, 0.6, (3, 5), matplotlib.figure.Figure)


def dropped_in(axes):
    return (axes.images[0].get_array() == matplotlib.colors.to_rgb(show.DROPPED)).all(-1)


def maps_of(figure):
    """The large maps, without the one of which nothing is dropped, and the small ones."""
    maps = [axes for axes in figure.axes if axes.images]
    width = maps[0].get_position().width
    large = [axes for axes in maps if axes.get_position().width == pytest.approx(width)]
    return large[1:], [axes for axes in maps if axes not in large]


def test_the_numbers_are_those_of_the_masks_in_the_picture(drawn):
    masks, figure = drawn
    texts = [text.get_text() for text in figure.texts]
    assert texts[0] == "keep_prob 0.6, block_size 3 x 5"
    large, small = maps_of(figure)
    of_one = [text for text in texts if text.endswith("of this map kept")]
    assert of_one == [f"{1 - dropped_in(axes).mean():.3f} of this map kept" for axes in large]
    gammas = [block_gamma(0.6, (12, 16), (3, 5), rule) for rule in ("paper", "exact")]
    expected = [0.6, *(expected_keep(gamma, (12, 16), (3, 5)) for gamma in gammas)]
    assert [text for text in texts if text.startswith("asked")] == [
        f"asked 0.6, expected {keep:.3f}" for keep in expected
    ]
    assert expected[2] == pytest.approx(0.6) and expected[1] > 0.65
    kept = [float(re.match(r"kept (.*) of 256 ch", text)[1]) for text in texts if "256" in text]
    assert kept == [round(float(mask.kept.mean()), 3) for mask in masks]
    # 256 maps of 192 cells, a third of which a block may take at once: within five deviations.
    np.testing.assert_allclose(kept, expected, atol=0.05)
    in_small = [dropped_in(axes) for axes in small]
    assert len(in_small) == 36
    np.testing.assert_array_equal(in_small[12:24], ~masks[1].kept[1:13])


def test_blocks_are_blocks_and_dropout_is_none(drawn):
    def is_blocks(dropped):
        windows = np.lib.stride_tricks.sliding_window_view(dropped, (3, 5)).all((-2, -1))
        union = np.zeros_like(dropped)
        for row, column in np.argwhere(windows):
            union[row : row + 3, column : column + 5] = True
        return (union == dropped).all()

    large, _ = maps_of(drawn[1])
    assert [is_blocks(dropped_in(axes)) for axes in large] == [False, True, True]


def test_the_curves_are_expected_keep_and_the_points_what_was_kept(drawn):
    masks, figure = drawn
    (axes,) = (axes for axes in figure.axes if axes.lines)
    paper, paper_point, exact, exact_point = axes.lines
    assert paper.get_ydata()[60] == pytest.approx(masks[1].expected)
    np.testing.assert_allclose(exact.get_ydata(), exact.get_xdata(), atol=1e-9)
    assert paper_point.get_xydata().tolist() == [[0.6, masks[1].kept.mean()]]
    assert exact_point.get_xydata().tolist() == [[0.6, masks[2].kept.mean()]]


def test_the_committed_picture_is_what_the_command_draws(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert show.main([]) == 0
    *numbers, wrote = capsys.readouterr().out.splitlines()
    assert wrote == "Wrote dropblock.png"
    assert COMMITTED.stat().st_size < 300_000
    with Image.open(COMMITTED) as committed, Image.open("dropblock.png") as anew:
        assert committed.info["Description"].splitlines() == numbers
        assert anew.info["Description"].splitlines() == numbers
        assert committed.size == anew.size
        # The same on a page of any colour.
        assert committed.convert("RGBA").getpixel((2, 2)) == (255, 255, 255, 255)


def test_a_photo_lies_on_the_map_upright_and_cut(tmp_path):
    photo = np.zeros((40, 90, 3), np.uint8)
    photo[:20] = (200, 0, 0)
    photo[20:] = (0, 0, 200)
    photo[:, :25] = photo[:, 65:] = 255  # is cut off
    turned = Image.fromarray(np.rot90(photo))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "photo.png", exif=exif)
    features = show.photo_map(tmp_path / "photo.png", (8, 8))
    assert features.shape == (8, 8, 3)
    np.testing.assert_allclose(features[:4], np.full((4, 8, 3), (200 / 255, 0, 0)), atol=0.01)
    np.testing.assert_allclose(features[4:], np.full((4, 8, 3), (0, 0, 200 / 255)), atol=0.01)


def test_flags(tmp_path, drawn, capsys):
    masks, _ = drawn
    Image.new("RGB", (30, 30), (0, 255, 0)).save(tmp_path / "photo.png")
    out = tmp_path / "masks.svg"
    assert show.main([str(tmp_path / "photo.png"), *FLAGS, f"--out={out}"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"dropout: asked 0.6, expected 0.600, kept {masks[0].kept.mean():.3f}",
        f"DropBlock, paper's gamma: asked 0.6, expected 0.679, kept {masks[1].kept.mean():.3f}",
        f"DropBlock, exact gamma: asked 0.6, expected 0.600, kept {masks[2].kept.mean():.3f}",
        f"Wrote {out}",
    ]
    assert "<svg" in out.read_text()


def test_with_a_screen_it_is_a_window(monkeypatch, tmp_path):
    from matplotlib import pyplot

    shown = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pyplot, "get_backend", lambda: "TkAgg")
    monkeypatch.setattr(pyplot, "show", lambda: shown.extend(pyplot.get_fignums()))
    assert show.main(FLAGS) == 0
    pyplot.close("all")
    assert len(shown) == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "flags, sentence",
    [
        ("--keep_prob 1.5", "keep_prob must be in [0, 1], got 1.5"),
        ("--keep_prob nan", "keep_prob must be in [0, 1], got nan"),
        ("--block_size 0", "block_size must be at least 1 on each axis, got 0"),
        (
            "--block_size 2x2x2",
            "block_size must be an int or have one side for each of the 2 spatial axes, "
            "got (2, 2, 2)",
        ),
        ("--map_size 0", "map_size must be one or two sides from 1 to 256, got 0 x 0"),
        ("--map_size 8x257", "map_size must be one or two sides from 1 to 256, got 8 x 257"),
        ("--seed -1", "seed must be from 0 to 2**32 - 1, got -1"),
        ("--out masks.jpg", "--out must end in .png or .svg, got masks.jpg"),
        ("--out no/masks.png", "no/masks.png cannot be written: No such file or directory"),
        ("photo.jpg", "there is no file photo.jpg"),
        ("text.jpg", "text.jpg cannot be read as an image"),
    ],
)
def test_what_is_wrong_is_one_sentence(flags, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("text.jpg").write_text("no picture")
    assert show.main([*FLAGS, *flags.split()]) == 2
    assert capsys.readouterr().err == f"error: {sentence}\n"
    assert not list(tmp_path.glob("*.png"))


def test_a_size_that_is_no_number_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        show.main(["--map_size", "14x"])
    assert stop.value.code == 2
    assert "'14x' is no SIDE or HEIGHTxWIDTH" in capsys.readouterr().err


def test_without_matplotlib_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert show.main([]) == 2
    assert capsys.readouterr().err == (
        "error: dropblock.show draws with matplotlib, which is not installed: "
        "pip install 'dropblock-jax[show]'\n"
    )
