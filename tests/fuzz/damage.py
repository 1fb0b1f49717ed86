"""Damage to bytes, and to the values of a JSON."""

import copy
import json
import random
from typing import Any


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Bytes as a broken disk, a cut download or a bad tool leave them."""
    start = rng.randrange(len(data) + 1)
    stop = min(len(data), start + rng.choice((1, 4, 64, 1024)))
    part = data[start:stop]
    ways = (
        lambda: data[:start],
        lambda: data[start:],
        lambda: data[:start] + data[stop:],
        lambda: data[:stop] + data[start:],
        lambda: data[:start] + rng.randbytes(len(part)) + data[stop:],
        lambda: data[:start] + bytes(len(part)) + data[stop:],
        lambda: data[:start] + rng.randbytes(rng.choice((1, 3, 100))) + data[start:],
        lambda: _flipped(rng, data),
        lambda: _flipped(rng, data),
        lambda: data + rng.randbytes(rng.choice((1, 100))),
        lambda: rng.choice((b"", b"\0", b"\xef\xbb\xbf" + data, data.replace(b"\n", b"\r\n"))),
        lambda: rng.choice((b"<html>404</html>", b"null", b"[]", b"{}", bytes(5000), b"\xff\xfe")),
    )
    return rng.choice(ways)()


def _flipped(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 8))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


# What a JSON may hold that no writer of ours does, as it is written there.
NUMBERS = (
    *("0", "1", "-1", "2", "3", "7", "0.5", "3.0", "60.9", "-0", "-0.0", "1E5", "1e-320", "1e-9"),
    *("1e400", "-1e400", "NaN", "Infinity", "1e308", "-1e308", "1e20", "2147483647", "2147483648"),
    *(str(2**40), str(2**63), str(-(2**63) - 1), "9" * 400, "9" * 5000),
)
_DEEP = "[" * 2000 + "]" * 2000
OTHERS = (
    *("null", "true", "false", "[]", "{}", "[null]", "[[]]", '{"a":{}}', '"x"', '""', '" "'),
    *('"0"', '"1"', '"nan"', '"1_0"', '"\\u0663"', _DEEP, '"' + "x" * 3000 + '"'),
    *('"\\u0000"', '"a\\u0000.png"', '"\\ud800"', '"$\\\\foo$"', '"a\\nb"', '"\\u202e"', '"."'),
    *('"../x"', '"/etc/passwd"', '"/dev/zero"', '"../../../../etc/hostname"', '"a/../b"'),
    *('"os.system"', "\"__import__('os')\"", '"{0.__class__}"', '"{SPLIT:9999999999}"'),
)


def mutated(rng: random.Random, tree: Any) -> str:
    """A JSON of which one to three values are something else, missing, or there twice."""
    tree = copy.deepcopy(tree)
    tokens: list[str] = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            break
        parent, key = rng.choice(places)
        way = rng.randrange(10)
        if way == 0:
            del parent[key]
        elif way == 1 and isinstance(parent, list):
            parent.insert(rng.randrange(len(parent) + 1), copy.deepcopy(parent[key]))
        elif way == 1:
            parent[f"{_TWICE}{len(tokens)}@{key}"] = copy.deepcopy(parent[key])
        elif way == 2:
            other, place = rng.choice(places)
            parent[key] = copy.deepcopy(other[place])
        else:
            tokens.append(rng.choice(rng.choice((NUMBERS, OTHERS))))
            parent[key] = f"{_TOKEN}{len(tokens) - 1}@"
    text = json.dumps(tree)
    for number, token in enumerate(tokens):
        text = text.replace(f'"{_TOKEN}{number}@"', token)
    for number in range(4):
        text = text.replace(f'"{_TWICE}{number}@', '"')
    return text


_TOKEN, _TWICE = "@@token", "@@twice"


def _places(tree: Any):
    """Each value within a tree, as its container and its key there."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(items):
        yield tree, key
        if isinstance(value, (dict, list)):
            yield from _places(value)
