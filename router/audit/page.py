"""The audit as one self-contained page: no script, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from router.audit import labels
from router.audit.audit import Audit
from router.audit.changes import Change

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --line: #d8dee4; --bar: #9fb3c8; --good: #1a7f4b;
  --back: #ffffff; --panel: #f6f8fa; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9da7b1; --line: #30363d; --bar: #4d6a88;
  --good: #4cc38a; --back: #0d1117; --panel: #161b22; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); margin: 0 auto;
  padding: 2rem 1rem; max-width: 54rem; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin-top: 2.5rem; } h3 { font-size: 1rem; }
.lead { font-size: 1.1rem; } .soft { color: var(--soft); font-size: .9rem; }
strong { color: var(--good); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .5rem; border-bottom: 1px solid var(--line); vertical-align: middle; }
td.n, th.n { text-align: right; white-space: nowrap; }
.wide { overflow-x: auto; }
svg { display: block; width: 100%; min-width: 8rem; height: 1rem; }
rect { fill: var(--bar); } rect.good { fill: var(--good); }
line { stroke: var(--ink); stroke-width: 1; }
pre { background: var(--panel); border: 1px solid var(--line); padding: .75rem 1rem; overflow-x: auto; }
"""


def page(found: Audit, advice: Sequence[Change]) -> str:
    """HTML in UTF-8. What comes from the log, such as names of files, is escaped."""
    best = found.levers["together"]
    days = max((found.end - found.start).total_seconds() / 86_400, 1.0)
    a_month = (found.usd - best.usd) / days * 30
    low, high = best.interval
    is_read = found.n_read * 2 > found.n_calls
    drawn = "" if is_read else " Which calls need less is assumed here, for the log keeps no text."
    title = f"{best.saved:.0%} of ${found.usd:,.2f} could have been saved"
    if best.usd >= found.usd:
        title = f"${found.usd:,.2f} spent, and no way found to spend less"
    body = "\n".join(
        (
            f"<h1>{title}</h1>",
            f'<p class="lead">{found.n_calls:,} calls {labels.days(found.start, found.end)}. With each call '
            f"on the cheapest model that suffices and the cache planned for it, they would have cost "
            f"<strong>${best.usd:,.2f}</strong>: {low:.0%} to {high:.0%} less (95 % interval). At this pace that is "
            f"<strong>${a_month:,.0f} a month</strong>.{drawn}</p>",
            "<h2>What each change alone would do</h2>",
            _levers(found),
            "<h2>What to do first</h2>",
            '<p class="soft">Settings of one change stand alone: paste those of one.</p>' if len(advice) > 1 else "",
            *(_change(number, change) for number, change in enumerate(advice, 1)),
            "" if advice else "<p>Nothing would save 1 % of the bill.</p>",
            "<h2>Where the money goes</h2>",
            _parts(found),
            _misses(found),
            _heavy(found),
            "<h2>By model</h2>",
            _models(found),
            "<h2>How this was found</h2>",
            _method(found),
        )
    )
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Audit: {title}</title>'
    head += f"<style>{_STYLE}</style>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main>\n{body}\n</main></body></html>\n'


def _bar(share: float, label: str, *, good: bool = False, interval: tuple[float, float] | None = None) -> str:
    """A bar of `share` of the width, with its interval as a line."""
    width = max(min(share, 1.0), 0.0) * 100
    mark = ""
    if interval is not None:
        low, high = (max(min(end, 1.0), 0.0) * 100 for end in interval)
        mark = f'<line x1="{low:.2f}" x2="{high:.2f}" y1="5" y2="5"/>'
    kind = ' class="good"' if good else ""
    return (
        f'<svg viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="{escape(label)}">'
        f'<rect{kind} x="0" y="1" width="{width:.2f}" height="8"/>{mark}</svg>'
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first two columns are text and a bar, the others numbers."""
    top = "".join(
        f"<th scope=col{' class=n' if at > 1 else ''}>{escape(head)}</th>" if head else "<td></td>"
        for at, head in enumerate(heads)
    )
    body = "".join(
        "<tr>" + "".join(f"<td{' class=n' if at > 1 else ''}>{cell}</td>" for at, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide" tabindex="0"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _levers(found: Audit) -> str:
    most = max(found.usd, *(o.usd for name, o in found.levers.items() if name != "uncached"), 1e-9)
    rows = [("as it was", _bar(found.usd / most, f"${found.usd:,.2f}"), f"${found.usd:,.2f}", "")]
    for name, outcome in found.levers.items():
        if name == "uncached":
            continue
        ends = tuple(found.usd * (1 - end) / most for end in reversed(outcome.interval))
        bar = _bar(outcome.usd / most, f"${outcome.usd:,.2f}", good=name == "together", interval=(ends[0], ends[1]))
        low, high = outcome.interval
        rows.append((labels.LEVERS[name], bar, f"${outcome.usd:,.2f}", f"{outcome.saved:.0%} [{low:.0%}, {high:.0%}]"))
    plain = found.levers["uncached"].usd
    note = f"Without any caching the same calls would have cost ${plain:,.2f}. Lines are 95 % intervals."
    return _table(("", "", "cost", "saved"), rows) + f'<p class="soft">{note}</p>'


def _change(number: int, change: Change) -> str:
    code = f'<pre tabindex="0">{escape(change.toml or change.command)}</pre>' if change.toml or change.command else ""
    where = '<p class="soft">In tierwise.toml:</p>' if change.toml else ""
    return f"<h3>{number}. {escape(change.title)}: ${change.usd:,.2f}</h3><p>{escape(change.why)}</p>{where}{code}"


def _parts(found: Audit) -> str:
    rows = []
    for name, weight in found.weights.parts.items():
        share = weight.usd / found.usd if found.usd else 0.0
        tokens = labels.tokens(weight.tokens)
        rows.append((labels.PARTS[name], _bar(share, f"{share:.0%}"), tokens, f"${weight.usd:,.2f}", f"{share:.0%}"))
    read = f'<p class="soft">{found.weights.hit_rate:.0%} of input tokens were read from the cache.</p>'
    return _table(("", "", "tokens", "USD", "share"), rows) + read


def _misses(found: Audit) -> str:
    if not found.weights.misses:
        return ""
    rows = []
    for cause, weight in sorted(found.weights.misses.items(), key=lambda item: -item[1].usd):
        share = weight.usd / found.usd if found.usd else 0.0
        n = f"{found.weights.n_misses[cause]:,}"
        rows.append((labels.CAUSES[cause], _bar(share, f"{share:.0%}"), n, f"${weight.usd:,.2f}", f"{share:.0%}"))
    return "<h2>What was paid again, for the cache could not be read</h2>" + _table(
        ("", "", "calls", "USD", "of the bill"), rows
    )


def _heavy(found: Audit) -> str:
    parts = []
    for title, rows in (("Tools", found.weights.tools), ("Files", found.weights.files)):
        if rows:
            most = max(row.sent_tokens for row in rows) or 1
            parts.append(f"<h2>{title} that weigh most</h2>")
            parts.append(
                _table(
                    ("", "", "times", "tokens", "tokens in all prompts"),
                    (
                        (
                            escape(row.name),
                            _bar(row.sent_tokens / most, f"{row.sent_tokens:,}"),
                            f"{row.n_times:,}",
                            f"{row.tokens:,}",
                            f"{row.sent_tokens:,}",
                        )
                        for row in rows
                    ),
                )
            )
    return "".join(parts)


def _models(found: Audit) -> str:
    rows = []
    for line in found.models:
        share = (line.usd or 0.0) / found.usd if found.usd else 0.0
        usd = "no price known" if line.usd is None else f"${line.usd:,.2f}"
        tokens = labels.tokens(line.input_tokens)
        rows.append((escape(line.model), _bar(share, f"{share:.0%}"), f"{line.n_calls:,}", tokens, usd))
    return _table(("", "", "calls", "input tokens", "USD"), rows)


def _method(found: Audit) -> str:
    mix = ", ".join(f"{tier} {share:.0%}" for tier, share in found.mix.items())
    read = found.n_read / max(found.n_calls, 1)
    logs = "; ".join(
        f"{escape(log['kind'])}: {log['calls']:,} calls"
        + "".join(f", {n:,} left out ({escape(reason)})" for reason, n in log["skipped"].most_common())
        for log in found.logs
    )
    points = (
        f"Read: {logs}.",
        "Prices are today's, so that models can be compared; a bill of the past may differ.",
        f"The tiers that calls need: {mix}. The classifier read them from the text of {read:.0%} of the calls; for the "
        "others they are drawn. No answer was judged: try it on a part of your traffic before you rely on it.",
        f"{found.n_replayed:,} calls were replayed through the router with the providers' documented caches. Replaying "
        f"them as they were misses the real bill by {found.replay_error:+.1%}.",
    )
    return "<ul>" + "".join(f"<li>{point}</li>" for point in points) + "</ul>"
