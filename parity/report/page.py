"""Pieces of the report's page: elements, tables, style. `element` makes text markup, and escapes it."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence

from ltxrt.parity.check.results import (
    FAILED,
    PASSED,
    SKIPPED,
)

SIGNS = {PASSED: "✓", FAILED: "✗", SKIPPED: "–"}
# 'self' is the folder of a served page, file: that of an opened one; nothing else is ever fetched.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' file:"
STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --text: #1b2027; --dim: #58616d;
  --line: #dde1e7; --passed: #13733a; --failed: #b3261e; --skipped: #7a5600;
  --c0: #2160b5; --c1: #c2540a; --c2: #14804a; --c3: #b02a78; --c4: #6a48cf; --c5: #8a6a00; --c6: #0c7a89;
  --c7: #5b6470; }
@media screen and (prefers-color-scheme: dark) { :root { --page: #14171b; --card: #1d2126; --text: #e7eaee;
  --dim: #a0a9b4; --line: #343a42; --passed: #4cc784; --failed: #ff8078; --skipped: #e2b53e;
  --c0: #72abff; --c1: #ff9b52; --c2: #4cc58b; --c3: #f27cb9; --c4: #ae97ff; --c5: #d8b832; --c6: #46c4d5;
  --c7: #a9b2bd; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1360px; margin: 0 auto; padding: 24px 20px 48px; }
section, header { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 16px 20px; margin: 0 0 16px; }
h1 { font-size: 22px; line-height: 1.3; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 10px; }
h3 { font-size: 14px; margin: 0 0 6px; overflow-wrap: anywhere; }
p { margin: 6px 0; overflow-wrap: anywhere; }
header { border-left: 8px solid var(--line); }
header.passed { border-left-color: var(--passed); }
header.failed { border-left-color: var(--failed); }
header.skipped { border-left-color: var(--skipped); }
.status { font-weight: 650; white-space: nowrap; }
h1 .status { letter-spacing: .04em; margin-right: 10px; }
.passed .status, .status.passed { color: var(--passed); }
.failed .status, .status.failed { color: var(--failed); }
.skipped .status, .status.skipped { color: var(--skipped); }
.dim, figcaption, caption { color: var(--dim); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 6px 7px; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--dim); font-weight: 600; vertical-align: bottom; }
th:first-child, td:first-child { padding-left: 0; }
tbody th { font-weight: 600; }
.n { text-align: right; }
td, tbody th { white-space: nowrap; }
.words, code { white-space: normal; }
.words { min-width: 240px; overflow-wrap: anywhere; }
.note td { border-top: 0; padding: 0 0 8px; }
.note .words { position: sticky; left: 0; width: fit-content; max-width: min(1100px, 84vw);
  padding-left: 12px; border-left: 3px solid var(--line); }
.pairs th { white-space: nowrap; padding-right: 32px; }
.pairs td { width: 100%; }
code { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.figures { display: grid; gap: 20px 28px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); }
figure { margin: 0; max-width: 680px; min-width: 0; }
figcaption { font-size: 13px; display: flex; flex-wrap: wrap; gap: 2px 18px; padding-left: 4px; }
figcaption span { display: inline-flex; align-items: center; gap: 6px; overflow-wrap: anywhere; }
.plot { display: block; width: 100%; min-width: 520px; height: auto; }
.key { flex: none; }
svg text { fill: var(--dim); font-size: 12px; font-variant-numeric: tabular-nums; }
.grid { stroke: var(--line); }
.curve { fill: none; stroke: var(--c); stroke-width: 1.6; stroke-linejoin: round; }
.faint { stroke-opacity: .45; }
.limit { stroke: var(--c); stroke-width: 1.4; stroke-dasharray: 7 5; }
.point { fill: var(--c); stroke: var(--card); stroke-width: .8; }
.entry + .entry { border-top: 1px solid var(--line); margin-top: 18px; padding-top: 16px; }
.strip { max-width: 100%; height: auto; border: 1px solid var(--line); border-radius: 6px; margin-top: 10px; }
a { color: var(--c0); }
@media print { body { background: #fff; font-size: 10pt; } main { max-width: none; padding: 0; }
  section, header { border-radius: 0; padding: 8px; } .scroll { overflow: visible; }
  .t { white-space: normal; } .words, .note .words { min-width: 0; max-width: none; }
  table, code { font-size: 6.8pt; }
  th, td { padding: 3px; } tr, figure { break-inside: avoid; } h2 { break-after: avoid; }
  header, .status, svg { print-color-adjust: exact; } }
"""


class Markup(str):
    """Text that is HTML already."""


class Number(str):
    """A table's cell that is aligned to the right."""


def escape(text: str) -> Markup:
    """Text as HTML. Lone surrogates, which JSON can hold and UTF-8 cannot, become question marks."""
    if isinstance(text, Markup):
        return text
    return Markup(html.escape(text.encode("utf-8", "replace").decode("utf-8")))


def element(tag: str, /, *children: str, **attributes: str | float) -> Markup:
    """An element; `class_` is class, `text_anchor` text-anchor. Children that are no Markup are escaped."""
    pairs = ((key.rstrip("_").replace("_", "-"), str(value)) for key, value in attributes.items())
    opening = "".join(f' {key}="{escape(value)}"' for key, value in pairs)
    if tag in ("img", "meta"):
        return Markup(f"<{tag}{opening}>")
    return Markup(f"<{tag}{opening}>{join(children)}</{tag}>")


def join(parts: Iterable[str]) -> Markup:
    """Parts one after the other, escaped where they are no Markup."""
    return Markup("".join(map(escape, parts)))


def badge(status: str) -> Markup:
    """A status as a sign and a word in its colour."""
    kind = status if status in SIGNS else FAILED
    return element("span", f"{SIGNS[kind]} {status.upper()}", class_=f"status {kind}")


def error(value: float) -> Number:
    """A relative error or a tolerance, as 1.25e-03."""
    return Number(f"{value:.2e}")


def decibels(value: float | None) -> Number:
    """A PSNR or SNR in decibels; None is the infinite one of equal tensors."""
    return Number("equal" if value is None else f"{value:.1f}")


def optional(value: float | None, shown: Callable[[float], str] = str) -> Number:
    """A number that may be missing."""
    return Number("–" if value is None else shown(value))


def words(sentences: Sequence[str]) -> Markup:
    """A cell of sentences, one below the other."""
    return element("div", *(element("div", sentence) for sentence in sentences), class_="words")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[Sequence[str]] = ()) -> Markup:
    """A table that scrolls where it is too wide. Its first column names the row, a `Number` stands right.

    notes: sentences to each row, below it and as wide as the table, so that they are seen without scrolling.
    """
    kinds = ["n" if any(isinstance(row[i], Number) for row in rows) else "t" for i in range(len(heads))]
    top = join(element("th", head, scope="col", class_=kind) for head, kind in zip(heads, kinds))
    lines = []
    for index, row in enumerate(rows):
        first = element("th", row[0], scope="row", class_=kinds[0])
        rest = join(element("td", cell, class_=kind) for cell, kind in zip(row[1:], kinds[1:]))
        lines.append(element("tr", first, rest))
        if notes and notes[index]:
            note = element("td", words(notes[index]), colspan=len(heads))
            lines.append(element("tr", note, class_="note"))
    whole = element("table", element("thead", element("tr", top)), element("tbody", *lines))
    label = f"table by {heads[0]}"
    return element("div", whole, class_="scroll", tabindex=0, role="region", aria_label=label)


def section(title: str, *children: str) -> Markup:
    """A part of the page under its heading; nothing where it would be empty."""
    return element("section", element("h2", title), *children) if any(children) else Markup()
