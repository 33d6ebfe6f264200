"""A report as sections of text, tables and plots, written as HTML or Markdown. It knows nothing of risk."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape

from r1core import api

_STYLE = """body{font:15px/1.5 sans-serif;max-width:64em;margin:2em auto;padding:0 1em;color:#222;background:#fff}
p{overflow-wrap:anywhere}.wide{overflow-x:auto;margin:.8em 0}
table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.25em
.6em;text-align:left;vertical-align:top}th{background:#f3f4f6}.number{text-align:right;white-space:nowrap}
svg{width:100%;min-width:42em;height:auto}h1{font-size:1.5em}h2{font-size:1.15em;margin-top:1.8em}
@media(max-width:40em){table{font-size:.85em}td,th{padding:.2em .35em}}
@media print{.wide{overflow:visible}svg{min-width:0}h2{break-after:avoid}}"""
_NUMBER = re.compile(r"[-+]?[0-9][0-9.,]*%?")


@dataclass(frozen=True, slots=True)
class Section:
    """One numbered section, its paragraphs first, then `plot` (an `<svg>` element or ""), then its tables."""

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[api.Table, ...] = ()
    plot: str = ""


def to_html(title: str, sections: tuple[Section, ...]) -> str:
    """Return one HTML page that loads nothing from elsewhere."""
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>{escape(title)}</title>",
    ]
    parts += [f"<style>{_STYLE}</style>", f"<h1>{escape(title)}</h1>"]
    for number, section in enumerate(sections, 1):
        parts.append(f"<h2>{number}. {escape(section.title)}</h2>")
        parts += [f"<p>{escape(paragraph)}</p>" for paragraph in section.paragraphs]
        if section.plot:
            parts.append(_wide(section.plot))
        parts += [_wide(_table(table)) for table in section.tables]
    return "\n".join(parts) + "</html>\n"


def _wide(element: str) -> str:
    """What may be wider than a phone: it is scrolled, not the page."""
    return f"<div class='wide' tabindex='0'>{element}</div>"


def _table(table: api.Table) -> str:
    """Columns of numbers to the right."""
    right = [all(_NUMBER.fullmatch(cell) or not cell for cell in column) for column in zip(*table.rows, strict=True)]
    right = [one and any(row[at] for row in table.rows) for at, one in enumerate(right)]
    kinds = [" class='number'" if one else "" for one in right]
    head = "".join(f"<th{kind}>{escape(cell)}</th>" for kind, cell in zip(kinds, table.columns, strict=True))
    rows = "".join(
        f"<tr>{''.join(f'<td{kind}>{escape(cell)}</td>' for kind, cell in zip(kinds, row, strict=True))}</tr>"
        for row in table.rows
    )
    return f"<table><tr>{head}</tr>{rows}</table>"


def to_markdown(title: str, sections: tuple[Section, ...]) -> str:
    """Return Markdown; plots stand in it as inline SVG, which some renderers leave out."""
    parts = [f"# {title}"]
    for number, section in enumerate(sections, 1):
        parts += [f"## {number}. {section.title}", *section.paragraphs]
        if section.plot:
            parts.append(section.plot)
        for table in section.tables:
            lines = [table.columns, tuple("---" for _ in table.columns), *table.rows]
            parts.append(
                "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
            )
    return "\n\n".join(parts) + "\n"
