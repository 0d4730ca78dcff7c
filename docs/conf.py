"""Sphinx: `make docs` writes the site to `build/site`. It builds without a network."""

import os
import re
from pathlib import Path

import csraxis

project = "csraxis"
author = "the csraxis developers"
copyright = author
version = release = csraxis.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
templates_path = ["_templates"]
exclude_patterns = ["_static", "_templates"]
default_role = "code"

# Pages are Markdown that reads well on GitHub, too: links are relative, and headings have GitHub's anchors.
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
# Indented blocks are what a command prints.
highlight_language = "none"
copybutton_prompt_text = "$ "

autodoc_typehints = "none"
numpydoc_show_class_members = False

# Other projects' inventories come from their sites, so only where CSRAXIS_DOCS_NETWORK is set, as docs.yml does. What
# would be a link is plain text without them.
OTHERS = {
    "python": "https://docs.python.org/3",
    "numpy": "https://numpy.org/doc/stable",
    "scipy": "https://docs.scipy.org/doc/scipy",
    "dask": "https://docs.dask.org/en/stable",
    "anndata": "https://anndata.readthedocs.io/en/stable",
    "scanpy": "https://scanpy.readthedocs.io/en/stable",
    "sklearn": "https://scikit-learn.org/stable",
}
intersphinx_mapping = {name: (url, None) for name, url in OTHERS.items() if os.environ.get("CSRAXIS_DOCS_NETWORK")}
nitpick_ignore_regex = [("py:.*", rf"({'|'.join(OTHERS)})\..*")]

# `make linkcheck` asks every site that the pages link to. GitHub makes its anchors in the browser.
linkcheck_anchors_ignore_for_url = [r"https://github\.com/"]
linkcheck_timeout = 20
linkcheck_retries = 2

html_theme = "pydata_sphinx_theme"
html_title = "csraxis"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {"index": []}
html_theme_options = {
    "logo": {"text": "csraxis"},
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "show_toc_level": 2,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version", "theme-version"],
}

# Files that belong in the root of the repository; on the site they are pages in place of the links in docs/NAME.md.
IN_ROOT = ("changelog", "contributing", "security")


def pages_from_root(app, docname, source):
    """Put them in, and mend the links in them and to them."""
    text = source[0]
    if docname in IN_ROOT:
        text = (Path(app.srcdir).parent / f"{docname.upper()}.md").read_text().replace("](docs/", "](")
    links = re.compile(rf"\]\((?:\.\./)?({'|'.join(IN_ROOT).upper()})\.md")
    source[0] = links.sub(lambda link: f"]({link[1].lower()}.md", text)


def setup(app):
    """Called by Sphinx."""
    app.connect("source-read", pages_from_root)
