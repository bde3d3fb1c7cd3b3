"""What in a prompt keeps its cache from being read.

>>> from router.lint import lint
>>> lint("Today is 2026-11-22.")[0].rule
'date'
"""

from router.lint.findings import Finding, check, compare, lint

__all__ = ["Finding", "check", "compare", "lint"]
