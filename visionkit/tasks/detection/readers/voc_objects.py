"""What an XML file of Pascal VOC says: its picture and objects, nothing half understood."""

from __future__ import annotations

import math
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from visionkit.core.errors import DataError
from visionkit.data.labels.classes import check_class_names
from visionkit.data.labels.numbers import flag, number
from visionkit.tasks.detection.readers.box_cleaning import around_turned
from visionkit.tasks.detection.readers.voc_xml import Node, parse_xml

__all__ = ["VocObject", "VocPicture", "read_picture"]

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VocObject(NamedTuple):
    """An object.

    Args:
        name: Its class.
        where: Place of the name (file:line), for messages.
        box: xmin, ymin, xmax, ymax in pixels, as they are written; any floats. Around it where it is turned.
        box_where: Place of the box.
        difficult: Whether it is marked so.
    """

    name: str
    where: str
    box: tuple[float, float, float, float]
    box_where: str
    difficult: bool


class VocPicture(NamedTuple):
    """What a file says.

    Args:
        filename: Name of the picture without folders; "" where none is said.
        size: Its height and width in pixels, or None where the file does not say them.
        objects: In their order.
    """

    filename: str
    size: tuple[int, int] | None
    objects: list[VocObject]


def read_picture(file: Path) -> VocPicture:
    """Read a file.

    Raises:
        DataError: It is no such XML; or an element that counts stands twice, is missing or says nothing that is known;
            or a box lies in an element that would be passed over.
    """
    top = parse_xml(file)
    if top.tag != "annotation":
        raise DataError(f"{top.where}: <{top.tag}> where Pascal VOC has <annotation>; remove the file")
    for node in top.children:
        if node.tag != "object" and (node.holds("bndbox", *_CORNERS) or (node.tag[:3] == "obj" and node.children)):
            raise DataError(
                f"{node.where}: objects in <{node.tag}>, where Pascal VOC has an <object> for each right in "
                "<annotation>; rename or unpack it"
            )
    named = top.child("filename")
    filename = PureWindowsPath(named.text).name if named is not None else ""
    return VocPicture(filename, _size(top.child("size")), [_object(n) for n in top.children if n.tag == "object"])


def _size(node: Node | None) -> tuple[int, int] | None:
    sides = []
    for tag in ("height", "width"):
        side = node.child(tag) if node is not None else None
        value = (number(side.text) if side is not None else None) or 0.0
        if not (1 <= value < 2**24 and value.is_integer()):
            return None
        sides.append(int(value))
    return sides[0], sides[1]


def _object(node: Node) -> VocObject:
    inner = next((c for c in node.children if c.tag == "object"), None)
    if inner is not None:
        raise DataError(f"{inner.where}: an <object> in another one; put it beside that, or remove it")
    name = node.child("name")
    if name is None or not name.text:
        raise DataError(f"{(name or node).where}: an object without a name; write its class into <name>")
    check_class_names((name.text,), name.where)
    box = node.child("bndbox")
    if box is None:
        raise DataError(f"{node.where}: an object without <bndbox>; add its box or remove it")
    corners = []
    for tag in _CORNERS:
        corner = box.child(tag)
        if corner is None:
            raise DataError(f"{box.where}: a box without <{tag}>; add it")
        value = number(corner.text)
        if value is None:
            raise DataError(f"{corner.where}: {tag} is {corner.text!r:.40}, no number; correct it")
        corners.append(value)
    difficult = node.child("difficult")
    crowd = False if difficult is None else flag(difficult.text)
    if difficult is not None and crowd is None:
        raise DataError(f"{difficult.where}: difficult is {difficult.text!r:.40}; write 0 or 1")
    drawn = (corners[0], corners[1], corners[2], corners[3])
    degrees = _rotation(node)
    around = around_turned(drawn, degrees) if degrees else drawn
    return VocObject(name.text, name.where, around, box.where, bool(crowd))


def _rotation(node: Node) -> float:
    """Return by how many degrees a box is turned, as CVAT says in an attribute beside the box before it was turned."""
    attributes = node.child("attributes")
    for attribute in attributes.children if attributes is not None else ():
        name, value = attribute.child("name"), attribute.child("value")
        if name is not None and value is not None and name.text == "rotation":
            degrees = number(value.text)
            return degrees if degrees is not None and math.isfinite(degrees) else 0.0
    return 0.0
