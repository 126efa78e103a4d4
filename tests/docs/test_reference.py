"""The pages of the reference: settings are those of the table, and every public name is there."""

import importlib.util
import re
from pathlib import Path

import ltxrt

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "reference"


def test_the_page_of_settings_is_the_one_that_the_table_makes():
    spec = importlib.util.spec_from_file_location("settings", ROOT / ".ci" / "settings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (PAGES / "settings.md").read_text(encoding="utf-8") == module.page(), (
        "python .ci/settings.py > docs/reference/settings.md"
    )


def test_every_public_name_has_a_place():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES.glob("*.md"))
    shown = re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)
    names = {name.rpartition(".")[2] for name in shown}
    errors = {name for name in ltxrt.__all__ if name.endswith("Error")}
    assert "ltxrt.engines.errors" in shown
    assert set(ltxrt.__all__) - errors - {"__version__"} <= names
