"""The parity report as one HTML page. Importing it loads Jinja2 and matplotlib."""

from ltxrt.parity.report.html import render

__all__ = ["render"]
