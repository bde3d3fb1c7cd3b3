"""The metrics that are served are those that the page and the Grafana dashboard name."""

from __future__ import annotations

import json
import re

from router.offline import Failure, Upstream
from tests.conftest import ROOT
from tests.gateway.conftest import HELLO, Running, Serve


def names(gateway: Running) -> set[str]:
    """What /metrics has, without what a client library adds."""
    found = set(re.findall(r"^# TYPE (tierwise_\w+)", gateway.metrics(), re.MULTILINE))
    return {name for name in found if not name.endswith("_created")}


def test_the_page_names_each(serve: Serve, upstream: Upstream) -> None:
    page = (ROOT / "docs/gateway.md").read_text("utf-8").partition("## Metrics")[2].partition("## Operation")[0]
    lines = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(tierwise_\w+)`", " ".join(lines))) == names(serve(upstream.url))


def test_the_dashboard_asks_for_what_there_is(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(upstream.url, max_retries=0)
    upstream.failures.append(Failure(500, "api_error"))
    for model in ("auto", "auto", "claude-haiku-4-5"):
        gateway.post("/v1/messages", {**HELLO, "model": model})
    gateway.post("/v1/messages", b"{")
    gateway.records(2)
    shown = gateway.metrics()
    dashboard = json.loads((ROOT / "deploy/grafana.json").read_text("utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    for name in {name for expr in asked for name in re.findall(r"tierwise_\w+", expr)}:
        assert re.search(rf"^{name}(?:\{{|\s)", shown, re.MULTILINE) or f"# TYPE {name} " in shown, name
    labels = {label for expr in asked for label in re.findall(r"by \((\w+)\)", expr)} - {"le"}
    assert all(f'{label}="' in shown for label in labels)
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids)) and dashboard["uid"] == "tierwise"
