"""What a start tells of the data, and which slips it sees."""

import pytest

from inputs.found import Found, as_json, found_in, slips, table


def boxes(*counts, **fields):
    return Found(10, unit="boxes", counts=counts, **fields)


def test_a_table_of_boxes():
    found = {
        "train": boxes(2000, 15, left_out=("a",), bad=("b", "c")),
        "val": boxes(40, 5),
    }
    assert table(found, ("RBC", "Platelets")).splitlines() == [
        "                    train  val",
        "  images               10   10",
        "  boxes             2,015   45",
        "    RBC             2,000   40",
        "    Platelets          15    5",
        "  boxes left out        1    0",
        "  images of no use      2    0",
    ]


def test_a_table_of_pixels():
    found = {"train": Found(4, unit="pixels", counts=(75, 25), images=(4, 1))}
    assert table(found, ("sky", "tree")).splitlines()[2:] == [
        "  % of pixels (images)",
        "    sky                 75.00 (4)",
        "    tree                25.00 (1)",
    ]


def test_of_many_classes_those_with_most_and_fewest_are_shown():
    names = tuple(f"class{i}" for i in range(1000))
    counts = tuple((i * 7) % 1000 + 1 for i in range(1000))
    lines = table({"train": Found(5, counts=counts)}, names).splitlines()
    shown = [line.split() for line in lines if "class" in line][:-1]
    assert [count for _, count in shown] == [
        *("1,000", "999", "998", "997", "996", "995", "994", "993", "992", "991"),
        *("10", "9", "8", "7", "6", "5", "4", "3", "2", "1"),
    ]
    assert lines[-1] == "    (1,000 classes in all)"


def test_what_is_not_counted_is_said():
    class Source:
        def __len__(self):
            return 7

    found = {"train": found_in(Source())}
    assert table(found, ("a", "b")).splitlines() == [
        "                            train",
        "  images                        7",
        "    2 classes, not counted",
    ]
    assert slips(found, ("a", "b")) == []


@pytest.mark.parametrize(
    ("names", "counts", "said"),
    [
        (
            ("RBC", "RCB", "WBC"),
            (900, 3, 80),
            ["of 'RCB' (3): is that 'RBC' (900)"],
        ),
        (
            ("Platelets", "platelet"),
            (900, 50),
            ["'platelet' (50): is that 'Platelets' (900)"],
        ),
        (("cat", "car"), (90, 80), []),  # near, but as many
        (("cat", "elephant"), (90, 3), ["train has very few boxes of elephant (3)"]),
        (("cat", "elephant"), (90, 12), []),
        (("cat", "elephant"), (9, 3), []),  # all are few
        (("cat", "elephant"), (9, 0), ["train has no boxes of elephant"]),
        (("cat",), (2,), []),
    ],
)
def test_slips_of_one_split(names, counts, said):
    found = slips({"train": boxes(*counts)}, names)
    assert len(found) == len(said)
    assert all(want in got for want, got in zip(said, found, strict=True))


def test_a_class_that_evaluation_lacks_is_named_but_none_that_both_lack():
    found = {"train": boxes(50, 40, 0), "val": boxes(50, 0, 0)}
    assert slips(found, ("a", "bee", "cow")) == [
        "train has no boxes of cow",
        "val has no boxes of bee",
    ]


def test_few_pixels_are_few_images():
    found = {"train": Found(90, unit="pixels", counts=(10**6, 10**5), images=(90, 2))}
    assert slips(found, ("sky", "bird")) == ["train has very few images of bird (2)"]


def test_notes_come_first():
    found = {"train": Found(2, counts=(2, 0), notes=("a.tif is not taken",))}
    assert slips(found, ("a", "b")) == ["a.tif is not taken", "train has no images of b"]


def test_as_json():
    found = {"train": boxes(3, 4, bad=("x is broken",), left_out=("a box",)), "val": Found(2)}
    assert as_json(found, ("a", "b")) == {
        "class_names": ["a", "b"],
        "splits": {
            "train": {
                "examples": 10,
                "unit": "boxes",
                "counts": {"a": 3, "b": 4},
                "bad": ["x is broken"],
                "left_out": ["a box"],
            },
            "val": {"examples": 2, "unit": "images", "bad": [], "left_out": []},
        },
    }
