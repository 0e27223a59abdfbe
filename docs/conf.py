"""Sphinx configuration.

`make docs` builds twice, each with warnings as errors:

- `doctest` runs every example: `>>>` blocks in the docstrings that docs/api lists, and in the
  Markdown pages the directives of sphinx.ext.doctest, written as fenced blocks:

      ```{testcode}
      print(graph)
      ```
      ```{testoutput}
      SequenceGraph(...)
      ```

  (```` ```{doctest} ```` for a session with prompts.) The blocks of one page share their names, and
  a plain ```` ```python ```` block is shown without being run.
- `html` makes the site.

Prose is Markdown (MyST); the API reference is reStructuredText, as autodoc needs.
"""

from __future__ import annotations

import doctest
import os

import mmgraph

os.environ.setdefault("MPLBACKEND", "Agg")  # examples draw without a display

project = "mmgraph"
author = "The mmgraph authors"
project_copyright = "The mmgraph authors"
release = version = mmgraph.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # torch.nn.Module's say nothing about ours
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = ["Shape"]

# What a docstring's example may use without importing it.
doctest_global_setup = """
import torch
from torch import Tensor
from torch.nn import Module
import mmgraph
from mmgraph import *
from mmgraph.kernels import *
from mmgraph.nn import *
torch.manual_seed(0)
"""
doctest_default_flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

# References must lead somewhere. Those into other packages would need their inventories from the
# network, so the types of other packages are shown without a link.
nitpicky = True
nitpick_ignore_regex = [
    (
        "py:.*",
        r"(collections|matplotlib|networkx|np|numpy|os|pathlib|scipy|sklearn|torch|typing)\..*",
    ),
    ("py:.*", r"(Any|ArrayLike|Axes|Callable|Iterable|Iterator|Literal|Mapping|Path|Sequence)"),
    ("py:.*", r"(Module|Parameter|Tensor)"),
    ("py:.*", r"mmgraph\..*\._\w+"),  # private type variables and aliases
    ("py:.*", r"(Edges|Metric|ReadNodes)"),  # literals, spelled out in the text
]

html_theme = "furo"
html_title = f"mmgraph {release}"
