"""What `config.drop` is to a model."""

import pytest

from configs import defaults
from tasks.drop import make_drop


@pytest.mark.parametrize(
    ("fields", "attribute", "expected"),
    [
        ({}, "normalize", "batch"),
        ({"normalize": "sample"}, "normalize", "sample"),
        ({"normalize": "none"}, "normalize", None),  # as it is said on the command line
        ({"block_size": 5}, "block_size", 5),
        ({"block_size": [5, 3]}, "block_size", (5, 3)),  # as config.json has it
        ({"block_size": (5, 3)}, "block_size", (5, 3)),
        ({"places": {"group4/block1": 0.5}}, "places", (("group4.block1", 0.5),)),
        ({"sites": ["skip"]}, "sites", ("skip",)),
        ({"shared_mask": True}, "shared_mask", True),
        ({"gamma_rule": "exact"}, "gamma_rule", "exact"),
    ],
)
def test_a_drop_is_as_the_config_says(fields, attribute, expected):
    config = defaults.get_config().drop
    config.kind = "dropblock"
    places = fields.pop("places", {"group4": 1.0})
    with config.unlocked():
        config.places = places
    config.update(fields)
    drop = make_drop(config)
    assert drop.kind == "dropblock" and getattr(drop, attribute) == expected
    assert hash(drop) == hash(make_drop(config))


def test_places_have_factors():
    config = defaults.get_config().drop
    with config.unlocked(), config.ignore_type():
        config.places = "group4"
    with pytest.raises(ValueError, match="drop.places must give a factor .*got 'group4'"):
        make_drop(config)
