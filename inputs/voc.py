"""One annotation file of PASCAL VOC."""

import xml.etree.ElementTree as ElementTree

from inputs.reading import METADATA_BYTES, is_integer, is_name, number, read_file, shown


def parse_voc(path: str) -> tuple[dict, list[dict]]:
    """The size, if given, and the objects as in COCO, but with their class by name.

    Namespaces, which some tools write, do not count.

    Raises:
      ValueError: it is no such file; the message says why, `DataError` if it cannot be read.
    """
    parser = ElementTree.XMLParser(target=_Builder())
    try:
        root = ElementTree.fromstring(read_file(path, METADATA_BYTES), parser)
    except (ElementTree.ParseError, LookupError) as error:  # LookupError: an unknown encoding
        raise ValueError(str(error)) from error
    if _name(root) != "annotation":
        raise ValueError(f"its root is <{_name(root)}>, expected <annotation>")
    size = {}
    if root.find("{*}size") is not None:
        size = {tag: number(_text(_only(root, "size"), tag)) for tag in ("height", "width")}
        if not all(is_integer(pixels, 0, 2**31 - 1) for pixels in size.values()):
            raise ValueError(f"a <size> of {size['height']} x {size['width']}")
    return size, [_parse_object(thing) for thing in root.iterfind("{*}object")]


def _parse_object(thing: ElementTree.Element) -> dict:
    name = _text(thing, "name").strip()
    if not is_name(name):
        raise ValueError(f"an <object> of the <name> {shown(name)}")
    box = _only(thing, "bndbox")
    xmin, ymin, xmax, ymax = (number(_text(box, tag)) for tag in ("xmin", "ymin", "xmax", "ymax"))
    difficult = 0 if thing.find("{*}difficult") is None else number(_text(thing, "difficult"))
    if difficult not in (0, 1):
        raise ValueError(f"an <object> that is <difficult> {difficult}, expected 0 or 1")
    return {
        "category_id": name,
        "bbox": [xmin, ymin, xmax - xmin, ymax - ymin],
        "iscrowd": difficult,
    }


def _only(parent: ElementTree.Element, tag: str) -> ElementTree.Element:
    found = parent.findall(f"{{*}}{tag}")
    if len(found) != 1:
        raise ValueError(f"<{_name(parent)}> {'with several' if found else 'without'} <{tag}>")
    return found[0]


def _text(parent: ElementTree.Element, tag: str) -> str:
    return _only(parent, tag).text or ""


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


class _Builder(ElementTree.TreeBuilder):
    """Builds the tree of a file without entities of its own, which could grow without bound."""

    def doctype(self, *_: str | None) -> None:
        raise ValueError("it has a document type, which is not read")
