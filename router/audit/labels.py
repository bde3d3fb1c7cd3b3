"""What people are told the parts, causes and levers of an audit are."""

from __future__ import annotations

PARTS = {"static": "tools, system prompt", "history": "sent before", "new": "new", "output": "replies"}
CAUSES = {
    "not cached": "never cached",
    "pause": "cache had expired",
    "changed": "prompt had changed",
    "shortened": "history was shortened",
}
LEVERS = {
    "uncached": "without any caching",
    "caching": "caching alone",
    "routing": "routing alone",
    "effort": "effort alone",
    "together": "caching and routing",
}
