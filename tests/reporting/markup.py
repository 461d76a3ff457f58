"""What a browser would make of a page, as far as tests ask."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())


class Parsed(HTMLParser):
    """The elements of a page in order, and its text as a reader sees it."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.written: list[str] = []  # texts of the elements that hold what a model wrote
        self.unclosed: list[str] = []
        self._text: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        self.unclosed += self._open

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def shape(self) -> list[tuple[str, tuple[str, ...]]]:
        """The elements by name, with the names of their attributes."""
        return [(tag, tuple(attributes)) for tag, attributes in self.elements]

    def named(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        if dict(attrs).get("class") == "written":
            self.written.append("")
        if tag not in VOID:
            self._open.append(tag)
            self._inside = dict(attrs).get("class") == "written"

    def handle_endtag(self, tag: str) -> None:
        self._inside = False
        if not self._open or self._open.pop() != tag:
            self.unclosed.append(tag)

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data
            return
        self._text.append(data)
        if self._open and self._inside:
            self.written[-1] += data
