"""HTML fragments from a store, let through only as far as pictures and plain marks go.

Modalities escape what they render, but a store may come from anyone: whatever is not on the list is dropped or escaped.
"""

from __future__ import annotations

import re
from html import escape
from html.parser import HTMLParser

from torchbands.core.words import escaped

_TAGS = {"img", "span", "div", "p", "code", "pre", "b", "i", "em", "strong", "mark", "ins", "del", "small", "br", "wbr",
         "table", "thead", "tbody", "tr", "td", "th", "dl", "dt", "dd", "ul", "ol", "li"}  # fmt: skip
_EMPTY = {"img", "br", "wbr"}
_HIDDEN = {"script", "style", "template", "noscript", "iframe", "object", "svg", "math"}
_ATTRIBUTES = {"class", "alt", "title", "colspan", "rowspan"}
_PICTURE = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]+")


class _Filter(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.out: list[str] = []
        self.open: list[str] = []
        self.hidden: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _HIDDEN:
            self.hidden.append(tag)
        if self.hidden or tag not in _TAGS:
            return
        kept = [(k, v or "") for k, v in attrs if k in _ATTRIBUTES or (k == "src" and _PICTURE.fullmatch(v or ""))]
        written = "".join(f' {k}="{escape(escaped(v))}"' for k, v in kept)
        self.out.append(f"<{tag}{written}>")
        if tag not in _EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.hidden:
            if tag == self.hidden[-1]:
                self.hidden.pop()
        elif tag in self.open:
            while (last := self.open.pop()) != tag:
                self.out.append(f"</{last}>")
            self.out.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.out.append(escape(escaped(data, keep="\n\t")))


def harmless(fragment: str) -> str:
    """A fragment with only pictures (as data), text marks and tables left; every tag closed."""
    parser = _Filter()
    parser.feed(fragment)
    parser.close()
    return "".join(parser.out) + "".join(f"</{tag}>" for tag in reversed(parser.open))
