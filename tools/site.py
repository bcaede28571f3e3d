"""Build the documents as a site of static pages; a link that leads nowhere is an error.

    uv run --with mkdocs python -m tools.site [FOLDER]

The pages are those of docs/, with the README as the first one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
BESIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages that lie beside docs/, and their names on the site."""


def main() -> None:
    """Collect the pages, and build them."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "dist" / "site").resolve()
    with tempfile.TemporaryDirectory() as folder:
        pages = Path(folder) / "docs"
        collect(pages)
        configuration = {
            "site_name": "localapi",
            "theme": {"name": "mkdocs", "color_mode": "auto", "user_color_mode_toggle": True},
            "nav": navigation((pages / "documents.md").read_text("utf-8")),
            "validation": {"links": {"anchors": "warn", "unrecognized_links": "warn"}},
        }
        file = Path(folder) / "mkdocs.yml"
        file.write_text(json.dumps(configuration), "utf-8")  # which is YAML, too
        build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", str(file), "-d", str(target)]
        subprocess.run(build, check=True)
    print(f"{len(list(target.rglob('*.html')))} pages in {target}")


def collect(pages: Path) -> None:
    """Copy all pages into one folder, with links as they are there."""
    shutil.copytree(ROOT / "docs", pages)
    (pages / "index.md").rename(pages / "documents.md")
    for name, here in BESIDE.items():
        (pages / here).write_text((ROOT / name).read_text("utf-8").replace("docs/", ""), "utf-8")
    for page in pages.glob("*.md"):
        text = page.read_text("utf-8").replace("](index.md)", "](documents.md)")
        for name, here in BESIDE.items():
            text = text.replace(f"](../{name}", f"]({here}").replace(f"]({name}", f"]({here}")
        page.write_text(text.replace(" [中文](README.zh-CN.md)", ""), "utf-8")


def navigation(index: str) -> list[dict[str, object]]:
    """Return the pages below the headings of the index, as mkdocs has them."""
    parts: list[dict[str, object]] = [{"localapi": "index.md"}, {"All pages": "documents.md"}]
    names: list[dict[str, str]] = []
    for line in index.splitlines():
        if line.startswith("**"):
            names = []
            parts.append({line.strip("*"): names})
        for piece in line.split("[")[1:]:
            title, _, rest = piece.partition("](")
            names.append({title: rest.partition(")")[0]})
    return [*parts, {"Project": [{"Contributing": "contributing.md"}, {"Changelog": "changelog.md"}]}]


if __name__ == "__main__":
    main()
