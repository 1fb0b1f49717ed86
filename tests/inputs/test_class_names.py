import pytest

from inputs.class_names import parse_class_names
from inputs.images import DataError


@pytest.mark.parametrize(
    ("written", "names"),
    [
        (None, None),
        (("sky", "tree"), ("sky", "tree")),
        (["sky", "tree"], ("sky", "tree")),
        ("sky,tree", ("sky", "tree")),
        ("sky, tall tree,", ("sky", "tall tree")),
        ("cell", ("cell",)),
        ((0, 1), ("0", "1")),
        (("sky,tall tree",), ("sky", "tall tree")),  # as the command line gives it
        (('"sky,tall tree"',), ("sky", "tall tree")),  # with the quotes
        ("'sky', \"tall tree\"", ("sky", "tall tree")),
        ('"@names.txt"', ("traffic light", "sky")),
        (("@names.txt",), ("traffic light", "sky")),
        (("cell",), ("cell",)),
        (7, ("7",)),
        ("@names.txt", ("traffic light", "sky")),
        ("names.txt", ("traffic light", "sky")),
    ],
)
def test_names_of_all_forms(tmp_path, written, names):
    (tmp_path / "names.txt").write_text("traffic light\nsky\n\n")
    assert parse_class_names(written, str(tmp_path)) == names


def test_a_file_anywhere(tmp_path):
    (tmp_path / "names").write_text("a\nb\n")
    assert parse_class_names(str(tmp_path / "names"), None) == ("a", "b")
    for written in ("@nothing", "nothing.txt", str(tmp_path / "nothing")):
        with pytest.raises(DataError, match="nothing.* cannot be read .*the names of the classes"):
            parse_class_names(written, str(tmp_path))


@pytest.mark.parametrize("written", ["a,,b", "a,a", ("a", 1.5), ("a", ("b",)), 2.5, "", ("a", "")])
def test_what_was_parsed_is_shown_where_it_is_wrong(written):
    with pytest.raises(DataError, match=r"class_names is .*, read as \[.*\]: expected different"):
        parse_class_names(written, None)
