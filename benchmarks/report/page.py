"""The forms a report is written in: Markdown beside its figures, and one HTML page of everything.

A document is a list of pairs of a kind and a content: "h1" to "h4" and "p" text, "list" lines,
"table" rows of ready text, "code" commands, and "picture" the name of a figure and its description.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.records import markdown_table

Document = Sequence[tuple[str, Any]]

STYLE = """
body { margin: 0 auto; max-width: 76rem; padding: 1rem; color: #1a1a1a; background: #fff;
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { line-height: 1.2; } h2 { margin-top: 3rem; border-bottom: 2px solid #0072b2; }
p, li { max-width: 50rem; overflow-wrap: anywhere; }
div, pre { overflow-x: auto; margin: 1rem 0; font-size: .875rem; }
pre { padding: .6rem .8rem; background: #f2f2f2; white-space: pre-wrap; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #555; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
img { width: 100%; min-width: 40rem; max-width: 66rem; height: auto; }
"""

PICTURE = '<div><img src="data:image/svg+xml;base64,{data}" alt="{alt}"></div>'


def to_markdown(document: Document) -> str:
    """Write a document as Markdown; figures are PNG files beside it."""
    write = {
        "h1": "# {}".format,
        "h2": "## {}".format,
        "h3": "### {}".format,
        "h4": "#### {}".format,
        "p": str,
        "list": lambda lines: "\n".join(f"- {line}" for line in lines),
        "table": markdown_table,
        "code": "```sh\n{}\n```".format,
        "picture": lambda picture: "![{1}]({0}.png)".format(*picture),
    }
    return "\n\n".join(write[kind](content) for kind, content in document) + "\n"


def to_html(document: Document, folder: Path) -> str:
    """Write a document as one page that loads nothing else.

    Its title comes first in the document; SVG files of the figures are in the folder.
    """
    write = {
        "list": lambda lines: f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>",
        "table": lambda rows: f"<div>{pd.DataFrame(rows).to_html(index=False, border=0)}</div>",
        "code": lambda text: f"<pre>{escape(text)}</pre>",
        "picture": lambda picture: PICTURE.format(
            data=base64.b64encode((folder / f"{picture[0]}.svg").read_bytes()).decode(),
            alt=escape(picture[1]),
        ),
    }
    body = "\n".join(
        write[kind](content) if kind in write else f"<{kind}>{escape(content)}</{kind}>"
        for kind, content in document
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(document[0][1])}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )
