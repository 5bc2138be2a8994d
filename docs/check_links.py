"""Check the built pages: internal links and their anchors lead somewhere, and nothing is loaded from elsewhere.

``python docs/check_links.py docs/_build/html`` prints what is wrong, and then exits with 1.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: Attributes by which a page loads files, by tag; links to other pages are those of <a>.
LOADED = {
    "script": "src",
    "link": "href",
    "img": "src",
    "source": "src",
    "iframe": "src",
    "video": "src",
    "audio": "src",
}
#: What a <link> only names.
ONLY_NAMED = {"canonical", "index", "search", "next", "prev", "author", "license", "help", "copyright"}


class Page(HTMLParser):
    """Anchors, links and loaded files of a page."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loaded = {"", "top"}, set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        named = tag == "link" and set(given.get("rel", "").split()) <= ONLY_NAMED
        if tag in LOADED and given.get(LOADED[tag]):
            (self.links if named else self.loaded).add(given[LOADED[tag]])
        for part in given.get("srcset", "").split(","):
            self.loaded |= set(part.split()[:1])

    handle_startendtag = handle_starttag


def find_faults(root):
    """Broken links and anchors, and files from elsewhere, in the pages and style sheets under a folder."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(root.rglob("*.html"))}
    for path, page in pages.items():
        for link in sorted(page.links | page.loaded):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loaded and parts.scheme != "data":
                    yield f"{path}: loads {link}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                yield f"{path}: no file {link}"
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{path}: no anchor {link}"
    for path in sorted(root.rglob("*.css")):
        for link in re.findall(
            r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s]+)", path.read_text(encoding="utf-8")
        ):
            yield f"{path}: loads {link}"


if __name__ == "__main__":
    folder = Path(sys.argv[1]).resolve()
    faults = list(find_faults(folder))
    print(*faults, f"{len(faults)} faults in the pages of {folder.name}", sep="\n")
    sys.exit(bool(faults) or not any(folder.rglob("*.html")))
