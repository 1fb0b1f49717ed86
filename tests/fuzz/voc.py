"""Broken annotations of PASCAL VOC, beside one that is whole."""

import math
import random
import re
import xml.dom.minidom
from pathlib import Path
from xml.parsers.expat import ExpatError

from fuzz.boxes import Refuse, Truth, box, compare
from fuzz.cases import Case
from fuzz.coco import _text
from fuzz.damage import damaged
from inputs.detection_sources import detection_source
from photos import encoded, photo

_SIZE = (30, 40)
_WORDS = (
    *(
        "0",
        "1",
        "5",
        "12.5",
        "30",
        "40",
        "1e1",
        " 7 ",
        "60.9",
        "-3",
        "2147483648",
        "1e308",
        "1e400",
    ),
    *("nan", "inf", "-inf", "1_0", "٣", "0x10", "1,5", "", " ", "one", "9" * 400, "1e-320", "+5"),
    *(
        "dog",
        "ant bee",
        "$\\foo$",
        "a&amp;b",
        "<b/>",
        "&#0;",
        "&evil;",
        "x" * 3000,
        "../x",
        "\u202e",
    ),
    *("<![CDATA[5]]>", "<!-- 5 -->", "5<!-- -->0", "&#x35;", "&#55296;", "Unspecified", "true"),
)
_ENTITIES = '<!DOCTYPE a [<!ENTITY a "{}">{}]>'.format(
    "x" * 50, "".join(f'<!ENTITY a{i} "{"&a;" * 50}">' for i in range(20))
)
_OUTSIDE = '<!DOCTYPE a [<!ENTITY evil SYSTEM "file:///etc/hostname">]>'


def voc(rng: random.Random, folder: Path) -> Case:
    """An xml with other texts, elements that are missing, twice or in a namespace, or damage."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    texts = {"good": _whole(rng).encode(), "bad": _broken(rng)}
    for name, text in texts.items():
        (folder / "JPEGImages" / f"{name}.png").write_bytes(encoded(photo(*_SIZE), "BMP"))
        (folder / "Annotations" / f"{name}.xml").write_bytes(text)
    (folder / "ImageSets" / "Main" / "train.txt").write_text("good\nbad\n")
    truth = Truth([f"{name}.png" for name in texts], [])
    try:
        for index, text in enumerate(texts.values()):
            _add(truth, index, text)
    except Refuse:
        truth = None
    if truth is not None and not any(truth.boxes):
        truth = None  # nothing tells the classes

    def read() -> str:
        return compare(lambda: detection_source("voc_xml", str(folder), "train"), truth)

    return Case(read, (str(folder / "Annotations" / "bad.xml"), f"{folder} train"))


def _whole(rng: random.Random) -> str:
    objects = "".join(
        f"<object><name>{rng.choice(('ant', 'bee'))}</name><pose>Left</pose>"
        f"<difficult>{rng.randrange(2)}</difficult><bndbox><xmin>{rng.randrange(20)}</xmin>"
        f"<ymin>{rng.uniform(0, 9)}</ymin><xmax>{rng.randrange(21, 40)}</xmax><ymax>22</ymax>"
        "</bndbox></object>"
        for _ in range(rng.randrange(1, 4))
    )
    size = "<size><width>40</width><height>30</height><depth>3</depth></size>"
    return f"<annotation><folder>x</folder>{size}{objects}</annotation>"


def _broken(rng: random.Random) -> bytes:
    text = _whole(rng)
    for _ in range(rng.choice((1, 1, 2))):
        elements = list(re.finditer(r"<(\w+)>[^<]*</\1>", text))
        way = rng.randrange(9)
        if way < 4 and elements:
            found = rng.choice(elements)
            text = text[: found.start(0)] + _with(found, rng.choice(_WORDS)) + text[found.end(0) :]
        elif way == 4 and elements:  # missing, or twice
            found = rng.choice(elements)
            text = text.replace(found[0], rng.choice(("", 2 * found[0])), 1)
        elif way == 5:
            tag = rng.choice(("size", "bndbox", "object", "annotation"))
            other = rng.choice(("Object", "box", "a:b", f"{tag} xmlns='http://x'", f"{tag} x='1'"))
            text = text.replace(f"<{tag}>", f"<{other}>").replace(
                f"</{tag}>", f"</{other.split()[0]}>"
            )
        elif way == 6:
            tag = rng.choice(("annotation", "object", "bndbox"))
            text = text.replace(f"<{tag}>", f"<v:{tag} xmlns:v='http://x'>")
            text = text.replace(f"</{tag}>", f"</v:{tag}>")
        elif way == 7:
            code = rng.choice(
                ("nope", "utf-8", "idna", "UTF-16", "latin-1", "cp437", "hex", "gb2312")
            )
            text = f'<?xml version="1.0" encoding="{code}"?>{text}'
        else:
            text = rng.choice((_ENTITIES, _OUTSIDE, "<a>" * 9999, "\ufeff", "\n", "<?x?>")) + text
    data = text.encode(rng.choice(("utf-8", "utf-8", "utf-8", "utf-16", "latin-1")), "replace")
    return damaged(rng, data) if rng.random() < 0.25 else data


def _with(element: re.Match, content: str) -> str:
    return f"<{element[1]}>{content}</{element[1]}>"


def _add(truth: Truth, index: int, text: bytes) -> None:
    """What minidom, a parser of its own, finds in a file."""
    try:
        document = xml.dom.minidom.parseString(text)
    except (ExpatError, ValueError, LookupError, AttributeError):
        raise Refuse from None
    root = document.documentElement
    if document.doctype is not None or _tag(root) != "annotation":
        raise Refuse
    size, other = _SIZE, False
    if sizes := _children(root, "size"):
        (found,) = sizes if len(sizes) == 1 else (None,)
        told = [_number(found, key) for key in ("height", "width")]
        if any(side != int(side) or not 0 <= side < 2**31 for side in told):
            raise Refuse
        size = tuple(map(int, told)) if 0 not in told else _SIZE
        other = size != _SIZE
    truth.boxes.append([])
    if other:
        truth.of_another_size += (index,)
    for thing in _children(root, "object"):
        name = _text(_only(thing, "name").strip())
        difficult = _number(thing, "difficult") if _children(thing, "difficult") else 0
        boxes = _children(thing, "bndbox")
        if difficult not in (0, 1) or len(boxes) != 1:
            raise Refuse
        xmin, ymin, xmax, ymax = (_number(boxes[0], t) for t in ("xmin", "ymin", "xmax", "ymax"))
        corners = box(xmin, ymin, xmax - xmin, ymax - ymin, size)
        if corners is None:
            truth.left_out += 1
            truth.boxes[index] += []
        else:
            area = (xmax - xmin) * (ymax - ymin)
            truth.boxes[index].append((corners, name, difficult == 1, area))


def _tag(element) -> str:
    return element.tagName.rpartition(":")[2]


def _children(element, tag: str) -> list:
    if element is None:
        raise Refuse
    return [c for c in element.childNodes if c.nodeType == c.ELEMENT_NODE and _tag(c) == tag]


def _only(element, tag: str) -> str:
    """The text of the one child of a tag, up to the first element in it."""
    found = _children(element, tag)
    if len(found) != 1:
        raise Refuse
    text = ""
    for node in found[0].childNodes:
        if node.nodeType == node.ELEMENT_NODE:
            break
        if node.nodeType in (node.TEXT_NODE, node.CDATA_SECTION_NODE):
            text += node.data
    return text


def _number(element, tag: str) -> float:
    text = _only(element, tag).strip()
    if not re.fullmatch(r"[+-]?(\d{1,500}(\.\d*)?|\.\d+)(e[+-]?\d+)?", text, re.ASCII | re.I):
        raise Refuse
    if not math.isfinite(float(text)):
        raise Refuse
    return float(text)
