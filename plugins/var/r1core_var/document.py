"""A report as sections of text, tables and plots, written as HTML or Markdown. It knows nothing of risk."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from r1core import api

_STYLE = """body{font:15px/1.5 sans-serif;max-width:64em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.8em 0}td,th{border:1px solid #ccc;padding:.25em
.6em;text-align:left;vertical-align:top}
th{background:#f3f4f6}svg{width:100%;height:auto}h1{font-size:1.5em}h2{font-size:1.15em;margin-top:1.8em}"""


@dataclass(frozen=True, slots=True)
class Section:
    """One numbered section; `plot` is an `<svg>` element or ""."""

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[api.Table, ...] = ()
    plot: str = ""


def to_html(title: str, sections: tuple[Section, ...]) -> str:
    """Return one HTML page that loads nothing from elsewhere."""
    parts = ["<!doctype html><html lang='en'><meta charset='utf-8'>", f"<title>{escape(title)}</title>"]
    parts += [f"<style>{_STYLE}</style>", f"<h1>{escape(title)}</h1>"]
    for number, section in enumerate(sections, 1):
        parts.append(f"<h2>{number}. {escape(section.title)}</h2>")
        parts += [f"<p>{escape(paragraph)}</p>" for paragraph in section.paragraphs]
        for table in section.tables:
            head = "".join(f"<th>{escape(cell)}</th>" for cell in table.columns)
            rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
            parts.append(f"<table><tr>{head}</tr>{rows}</table>")
        parts.append(section.plot)
    return "\n".join(parts) + "</html>\n"


def to_markdown(title: str, sections: tuple[Section, ...]) -> str:
    """Return Markdown; plots stand in it as inline SVG, which some renderers leave out."""
    parts = [f"# {title}"]
    for number, section in enumerate(sections, 1):
        parts += [f"## {number}. {section.title}", *section.paragraphs]
        for table in section.tables:
            lines = [table.columns, tuple("---" for _ in table.columns), *table.rows]
            parts.append(
                "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
            )
        if section.plot:
            parts.append(section.plot)
    return "\n\n".join(parts) + "\n"
