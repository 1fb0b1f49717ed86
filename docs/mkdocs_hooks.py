"""What MkDocs asks of us: pages from all over the repository, at the addresses they have there.

So a link works alike where the repository is read and on the site. See mkdocs.yml and `make docs`.
"""

import fnmatch
import html
import pathlib
import re

from latex2mathml import converter
from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).parent.parent
PAGES = ("*.md", "docs/*.md", "docs/*.png", "experiments/results/*.md", "experiments/results/*.png")
LINKED = ("examples/*.py", "weights/resnet.py", "experiments/results/*.csv")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config) -> Files:
    """The pages and what they show, and the navigation of those that there are."""
    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)  # comes again, by its name in the repository
    paths = [path for pattern in (*PAGES, *LINKED) for path in sorted(ROOT.glob(pattern))]
    names = [path.relative_to(ROOT).as_posix() for path in paths]
    for name in names:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    config.nav = _there(config.nav, [name for name in names if name.endswith(".md")], config.nav)
    return files


def _there(nav, pages, whole):
    """The entries of `nav` that are among `pages`, patterns as what nothing in `whole` names."""
    named, found = str(whole), []
    for entry in nav:
        if isinstance(entry, str):
            matching = fnmatch.filter(pages, entry)
            found += [page for page in matching if page == entry or f"'{page}'" not in named]
            continue
        ((title, inner),) = entry.items()
        inner = _there(inner, pages, whole) if isinstance(inner, list) else inner
        if inner and (isinstance(inner, list) or inner in pages):
            found.append({title: inner})
    return found


def on_page_content(content: str, **_) -> str:
    """Formulas as MathML, which browsers draw by themselves."""

    def drawn(match):
        display = "block" if match[2] == "[" else "inline"
        return converter.convert(html.unescape(match[3]), display=display)

    return FORMULA.sub(drawn, content)
