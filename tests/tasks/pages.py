"""Read a page as a browser without scripts would, and say what is wrong with it."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Tags in order, visible text, and every breach of what a report promises."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.breaches: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        if self._open:
            self.breaches.append(f"never closed: {self._open}")
        ids = [identifier for _, attrs in self.tags if (identifier := attrs.get("id"))]
        if len(ids) != len(set(ids)):
            self.breaches.append(f"ids used twice: {sorted({i for i in ids if ids.count(i) > 1})}")
        for _, attrs in self.tags:
            for name in ("href", "xlink:href"):
                target = attrs.get(name) or ""
                if target.startswith("#") and target[1:] not in ids:
                    self.breaches.append(f"{target} leads nowhere")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag in {"script", "iframe", "object", "embed", "link"}:
            self.breaches.append(f"<{tag}>")
        for name, value in found.items():
            if name.startswith("on"):
                self.breaches.append(f"{tag} has a handler {name}")
            outside = name in {"src", "href", "xlink:href", "srcset", "action"}
            if outside and not (value or "").startswith(("#", "data:image/", "data:audio/wav;base64,")):
                self.breaches.append(f"{tag} refers outside: {value}")
        if tag == "img" and not found.get("alt"):
            self.breaches.append("img without alt")
        if tag == "svg" and "drawing" not in str(self.tags[-2][1].get("class")):
            self.breaches.append("svg outside of a described element")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1] != tag:
            self.breaches.append(f"</{tag}> closes {self._open[-1:]}")
        else:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in {"style", "title"}:
            self.text.append(data.strip())

    @property
    def words(self) -> str:
        return " ".join(part for part in self.text if part)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]
