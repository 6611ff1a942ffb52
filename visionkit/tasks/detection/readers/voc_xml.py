"""XML with line numbers, read without risk: what Pascal VOC needs of it."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

from visionkit.core.errors import DataError
from visionkit.core.files import read_bytes

__all__ = ["Node", "parse_xml"]


_DECLARED = re.compile(rb"""(\s*<\?xml[^>]*?)\s+encoding\s*=\s*["']([A-Za-z0-9._-]+)["']([^>]*>)""")
_OWN = ("utf-8", "utf-16", "iso8859-1", "ascii")  # what expat decodes by itself


@dataclass
class Node:
    """An element.

    Args:
        tag: In lower case: tools that write ``<Object>`` mean the same.
        where: Its place (file:line), for messages.
        text: Without outer blanks.
        children: In their order.
    """

    tag: str
    where: str
    text: str = ""
    children: list[Node] = field(default_factory=list)

    def child(self, tag: str) -> Node | None:
        """Return the one child with a tag, or None.

        Raises:
            DataError: There are several: each may say something else.
        """
        found = [c for c in self.children if c.tag == tag]
        if len(found) > 1:
            raise DataError(f"{found[1].where}: a second <{tag}> in the same <{self.tag}>; keep the right one")
        return found[0] if found else None

    def holds(self, *tags: str) -> bool:
        """Return whether an element with one of these tags is in it, however deep."""
        below = [self]
        while below:
            children = below.pop().children
            if any(c.tag in tags for c in children):
                return True
            below += children
        return False


def parse_xml(path: Path) -> Node:
    """Return the outermost element of a file.

    Document types and entities are refused, so a small file cannot grow to gigabytes or read other files.

    Raises:
        DataError: The file cannot be read or is no such XML, with its line.
    """
    data = _decoded(read_bytes(path), path)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    top = Node("", str(path))
    opened = [top]

    def start(tag: str, attributes: Any) -> None:
        node = Node(tag.lower(), f"{path}:{parser.CurrentLineNumber}")
        opened[-1].children.append(node)
        opened.append(node)

    def end(tag: str) -> None:
        node = opened.pop()
        node.text = node.text.strip()

    def text(data: str) -> None:
        opened[-1].text += data

    def refuse(*arguments: Any) -> None:
        raise DataError(
            f"{path}:{parser.CurrentLineNumber}: declares a document type (<!DOCTYPE>), which is not read; remove it"
        )

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as e:
        what = expat.ErrorString(e.code)
        raise DataError(f"{path}:{e.lineno}: no valid XML ({what}); correct the line, or write the file anew") from None
    except (LookupError, ValueError) as e:  # an encoding that Python does not know
        raise DataError(f"{path}:1: no valid XML ({e}); save the file with UTF-8 encoding") from None
    return top.children[0]


def _decoded(data: bytes, path: Path) -> bytes | str:
    """Return text in an encoding that expat does not know, such as GB2312, as the file itself declares it."""
    head = _DECLARED.match(data)
    if head is None:
        return data
    name = head[2].decode("ascii")
    try:
        if not codecs.lookup(name)._is_text_encoding or codecs.lookup(name).name in _OWN:
            return data
        return head[1].decode("ascii") + head[3].decode("ascii") + data[head.end() :].decode(name)
    except LookupError:
        return data
    except UnicodeDecodeError as e:
        line = data[: head.end() + e.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: is no {name} text, as it says; save the file with UTF-8 encoding") from None
