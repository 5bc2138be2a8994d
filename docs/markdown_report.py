"""Turn the Markdown reports of the benchmarks into reStructuredText: headings, paragraphs, pipe tables, pictures."""

import re

#: A bullet or a number at the beginning of a line.
BULLET = re.compile(r"\s*([-*+]|\d+\.)\s+")


def to_rst(text: str, folder: str) -> str:
    """Convert a report; pictures are looked for in ``folder``."""
    out, lines = [], text.splitlines()
    while lines:
        line = lines.pop(0)
        if heading := re.match(r"(#+)\s+(.*)", line):
            title = inline(heading[2])
            # Sections of the page's own depth; below them rubrics, which may come in any order.
            out += ["", title, "~" * len(title), ""] if len(heading[1]) == 1 else ["", f".. rubric:: {title}", ""]
        elif line.startswith("```"):
            out += ["", "::", ""]
            while lines and not lines[0].startswith("```"):
                out.append("   " + lines.pop(0))
            del lines[:1]
            out.append("")
        elif line.startswith("|"):
            rows = [line]
            while lines and lines[0].startswith("|"):
                rows.append(lines.pop(0))
            out += table(rows)
        elif picture := re.match(r"!\[(.*?)\]\((.*?)\)\s*$", line):
            out += ["", f".. image:: {folder}/{picture[2]}", f"   :alt: {picture[1]}", "   :width: 100%", ""]
        else:
            in_list = bool(out and (BULLET.match(out[-1]) or out[-1].startswith(" ")))
            if out and out[-1] and line and not line.startswith(" ") and bool(BULLET.match(line)) != in_list:
                out.append("")
            out.append(inline(line))
    return "\n".join(out) + "\n"


def table(rows: list[str]) -> list[str]:
    """A pipe table as a list-table; the line of dashes marks the header."""
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip().strip("|"))] for row in rows]
    header = len(cells) > 1 and all(re.fullmatch(r":?-+:?", cell) for cell in cells[1])
    if header:
        del cells[1]
    width = len(cells[0])
    out = ["", ".. list-table::", f"   :header-rows: {int(header)}", ""]
    for row in cells:
        row = (row + [""] * width)[:width]
        out += [f"   {'* -' if i == 0 else '  -'} {inline(cell)}".rstrip() for i, cell in enumerate(row)]
    return [*out, ""]


def inline(text: str) -> str:
    """Code, links and bold in reStructuredText's spelling; every other sign that it would take for markup escaped."""
    bullet = BULLET.match(text)
    indent = bullet.end() if bullet else len(text) - len(text.lstrip())
    start, rest = text[:indent], text[indent:].rstrip()
    parts = re.split(r"(`[^`]+`|\[[^\]]+\]\([^)]+\)|\*\*[^*]+\*\*)", rest)
    return start + "".join(_span(part) for part in parts)


def _span(part: str) -> str:
    if part.startswith("`") and part.endswith("`") and len(part) > 2:
        return f"``{part[1:-1]}``\\ "
    if link := re.fullmatch(r"\[([^\]]+)\]\(([^)]+)\)", part):
        return f"`{link[1]} <{link[2]}>`__\\ "
    if part.startswith("**") and part.endswith("**") and len(part) > 4:
        return f"**{part[2:-2]}**\\ "
    return re.sub(r"([\\`*_|])", r"\\\1", part)
