"""Sphinx: `make docs` writes the site to `build/site`. It builds without a network."""

import os

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
suppress_warnings = ["toc.empty_glob"]

# Pages are Markdown that reads well on GitHub, too: links are relative, and headings have GitHub's anchors.
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
# Indented blocks are what a command prints.
highlight_language = "none"
copybutton_prompt_text = "$ "

autodoc_typehints = "none"
numpydoc_show_class_members = False

# Other projects' inventories come from their sites, so only where CSRAXIS_DOCS_NETWORK is set (docs.yml sets it). Nothing
# refers to them that is not also plain text without.
intersphinx_mapping = {}
if os.environ.get("CSRAXIS_DOCS_NETWORK"):
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "scipy": ("https://docs.scipy.org/doc/scipy", None),
        "dask": ("https://docs.dask.org/en/stable", None),
        "anndata": ("https://anndata.readthedocs.io/en/stable", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable", None),
        "sklearn": ("https://scikit-learn.org/stable", None),
    }

# `make -C`-less: sphinx-build -b linkcheck. GitHub makes anchors in the browser.
linkcheck_anchors_ignore_for_url = [r"https://github\.com/"]
linkcheck_timeout = 20
linkcheck_retries = 2

html_theme = "pydata_sphinx_theme"
html_title = "csraxis"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {"index": [], "changelog": []}
html_theme_options = {
    "logo": {"text": "csraxis"},
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "show_toc_level": 2,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version", "theme-version"],
}
