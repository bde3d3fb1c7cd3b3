"""The `tierwise` command: results on stdout, diagnostics on stderr; exit 0 done, 1 partly done, 2 not done."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Iterable
from decimal import Decimal
from typing import IO, Any

import click
import msgspec

from router import demo as demos
from router import explain
from router.catalog import PROVIDERS
from router.catalog_commands import catalog
from router.command_group import Commands
from router.engine import Router
from router.errors import ClientError, RequestError, TierwiseError
from router.options_cli import fleet_option, json_option, point_option, show_progress
from router.send.complete import Completion, complete
from router.types import Decision, Record

_artifact = click.option("--artifact", "-a", metavar="DIR", help="Another artifact than the shipped one.")


_FIRST = """\
Tierwise sends each LLM request to the cheapest model tier that suffices. Three things to do first:

  tierwise audit                    what your logs say you paid, and what would have been cheaper
  tierwise decide "your request"    which tier a request needs, and why (--explain)
  tierwise run -- your-program      a program's calls through a gateway of its own; --shadow changes nothing

tierwise demo shows all of it without a key. tierwise --help lists every command.
"""


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(package_name="tierwise")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Send each LLM request to the cheapest model tier that suffices.

    \b
    Examples:
      tierwise decide "Prove that sqrt(2) is irrational"
      cat prompt.txt | tierwise decide -
      tierwise decide --file requests.jsonl --jsonl > decisions.jsonl
      tierwise ask "What is the capital of Peru?"
      tierwise demo
    """
    if ctx.invoked_subcommand is None:
        click.echo(_FIRST, nl=False)


cli.add_command(catalog)


@cli.command()
@click.argument("text", required=False)
@click.option("--file", "file", type=click.File("rb"), help="Read the text (or, with --jsonl, the rows) from a file.")
@click.option(
    "--jsonl", is_flag=True, help='Rows {"id", "text" or "messages", "class"}, one line of JSON out for each.'
)
@point_option
@fleet_option
@_artifact
@click.option("--class", "traffic_class", help="The class of traffic, for an artifact that has learned some.")
@click.option("--explain", "explains", is_flag=True, help="Say what each word adds, and what each tier would cost.")
@json_option
def decide(
    text: str | None,
    file: IO[bytes] | None,
    jsonl: bool,
    operating_point: str | None,
    fleet: str | None,
    artifact: str | None,
    traffic_class: str | None,
    explains: bool,
    as_json: bool,
) -> None:
    """Which tier and model TEXT needs, and why. TEXT "-" is stdin. Nothing is sent anywhere.

    \b
    Examples:
      tierwise decide "Translate 'good morning' into Dutch"
      tierwise decide --json --operating-point quality - < prompt.txt
      tierwise decide --explain "Prove that sqrt(2) is irrational"
      tierwise decide --file rows.jsonl --jsonl
    """
    source = file if file is not None else sys.stdin.buffer if text == "-" else None
    if (text is None) == (file is None):
        raise click.UsageError('give one TEXT, "-" for stdin, or --file FILE')
    if jsonl and source is None:
        raise click.UsageError('--jsonl reads rows from --file FILE or from "-"')
    router = Router.load(artifact, fleet=fleet, operating_point=operating_point)
    if jsonl and source is not None:
        sys.exit(_decide_rows(router, source))
    prompt = source.read().decode("utf-8", "replace") if source is not None else text or ""
    request = prompt if traffic_class is None else _of_class(prompt, traffic_class)
    if explains:
        found = explain.explain(router, request)
        if as_json:
            click.echo(json.dumps(explain.as_row(found)))
        else:
            _told(found.decision)
            click.echo("\n".join(explain.lines(found)))
        return
    decision, elapsed_us = _timed(router, request)
    if as_json:
        click.echo(json.dumps({**_row(decision), "operating_point": decision.operating_point, "time_us": elapsed_us}))
        return
    _told(decision)
    click.echo(f"time        {elapsed_us:.0f} us (median of 25)")


def _told(decision: Decision) -> None:
    click.echo(f"tier        {click.style(str(decision.tier), bold=True)}")
    click.echo(f"model       {decision.model}")
    chances = "  ".join(f"{tier.value} {q:.3f}" for tier, q in decision.p_suffices.items())
    click.echo(f"p_suffices  {chances or '-'}")
    click.echo(f"reason      {decision.reason} (operating point {decision.operating_point})")
    for note in decision.notes:
        click.echo(f"note        {note}")


def _of_class(text: str, traffic_class: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "router": {"traffic_class": traffic_class}}


@cli.command()
@click.argument("text")
@click.option("--system", help="A system prompt.")
@click.option("--max-tokens", default=1024, show_default=True, help="The longest answer, in tokens.")
@click.option("--offline", is_flag=True, help="Use the embedded upstream: the reply is simulated.")
@point_option
@fleet_option
@json_option
def ask(
    text: str,
    system: str | None,
    max_tokens: int,
    offline: bool,
    operating_point: str | None,
    fleet: str | None,
    as_json: bool,
) -> None:
    """Send TEXT to the cheapest tier that suffices, print the answer, and what it cost on stderr. "-" is stdin.

    The fleet's models may be of several providers; keys come from ANTHROPIC_API_KEY, OPENAI_API_KEY, GEMINI_API_KEY
    and, for models of your own, from the variable that the settings name. Without --fleet: the first whose key is set.

    \b
    Examples:
      tierwise ask "What is the capital of Peru?"
      tierwise ask --fleet mine --system "Be brief." --json - < prompt.txt
    """
    prompt = sys.stdin.read() if text == "-" else text
    router = _router_for_keys(fleet, operating_point, offline)
    answer = _complete(router, prompt, system, max_tokens, offline)
    record = answer.record
    if as_json:
        calls = msgspec.to_builtins(answer.tool_calls)
        row = _record_row(record) if record else {}
        click.echo(json.dumps({"text": answer.text, "tool_calls": calls, **row}))
        return
    click.echo(answer.text)
    if record is None:  # it could not be written; the log says why
        return
    saved = "unknown" if record.saved_usd is None else f"${record.saved_usd:.6f}"
    cost = "unknown" if record.cost_usd is None else f"${record.cost_usd:.6f}"
    click.echo(f"[{record.tier} -> {record.model}, {record.reason}; cost {cost}, saved {saved}]", err=True)


@cli.command()
@click.option("--calls", default=360, show_default=True, type=click.IntRange(8), help="How many calls to sample.")
@click.option("--live", is_flag=True, help=f"Send {demos.LIVE_CALLS} calls to the provider whose key is set.")
@point_option
@json_option
def demo(calls: int, live: bool, operating_point: str | None, as_json: bool) -> None:
    """A support bot's traffic through the real dispatcher: decisions, cache hits, cost, and three baselines.

    Without --live nothing leaves this machine and the replies are simulated.
    """
    router = Router.load(operating_point=operating_point)
    if not as_json:
        _print_decisions(router)
    report = demos.live(router, show_progress) if live else demos.offline(router, calls, show_progress)
    if as_json:
        click.echo(json.dumps(report, default=_plain))
    else:
        _print_report(report)


def main() -> None:
    """The console script: errors of ours in one line and exit 2, never a traceback; Ctrl-C is 130."""
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        sys.exit(2)
    except click.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except TierwiseError as exc:
        click.echo(f"error: {exc}", err=True)
        sys.exit(2)


def _timed(router: Router, text: str | dict[str, Any]) -> tuple[Decision, float]:
    """A decision and its microseconds as a running program sees them: the median of 25, caches warm."""
    times = []
    for _ in range(25):
        start = time.perf_counter()
        decision = router.decide(text)
        times.append(time.perf_counter() - start)
    return decision, statistics.median(times) * 1e6


def _decide_rows(router: Router, lines: Iterable[bytes]) -> int:
    """Answer each row in order; 1 if any was bad (each is reported on stderr with its line number), else 0."""
    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder(dict[str, Any]).decode
    out, bad = sys.stdout.buffer, 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = decode(line)
            out.write(encode({"id": row.get("id"), **_row(router.decide(_request(row)))}) + b"\n")
        except (msgspec.DecodeError, UnicodeDecodeError, RequestError) as exc:
            bad = 1
            click.echo(f"line {number}: {exc}", err=True)
    out.flush()
    return bad


def _request(row: dict[str, Any]) -> Any:
    of_class = row.get("class")
    if "messages" in row:
        return row if of_class is None else {**row, "router": {**(row.get("router") or {}), "traffic_class": of_class}}
    if "text" not in row:
        raise RequestError(f'row has the keys {sorted(row)}, expected "text" or "messages"')
    if not isinstance(row["text"], str):
        raise RequestError(f'"text" is a {type(row["text"]).__name__}, expected a string')
    return row["text"] if of_class is None else _of_class(row["text"], of_class)


def _row(decision: Decision) -> dict[str, Any]:
    return {
        "tier": decision.tier,
        "model": decision.model,
        "p_suffices": {tier.value: round(q, 6) for tier, q in decision.p_suffices.items()},
        "reason": decision.reason,
    }


def _router_for_keys(fleet: str | None, operating_point: str | None, offline: bool) -> Router:
    """The chosen fleet's router, or without a choice the one whose provider's key is set."""
    router = Router.load(fleet=fleet, operating_point=operating_point)
    if offline or not router.fleet_is_default:
        return router
    named = [(provider.key_env, provider.fleet) for provider in PROVIDERS.values() if provider.key_env is not None]
    for key_env, default_fleet in named:
        if os.environ.get(key_env) and default_fleet is not None:
            return router.with_fleet(default_fleet)
    keys = ", ".join(key_env for key_env, _ in named)
    raise ClientError(f"no API key: set {keys} in the environment, or use --offline for a simulated reply")


def _complete(router: Router, prompt: str, system: str | None, max_tokens: int, offline: bool) -> Completion:
    """One call to the provider, or to the embedded upstream; an SDK's error in one line."""
    try:
        if not offline:
            return complete(router, prompt, system=system, max_tokens=max_tokens)
        from anthropic import Anthropic
        from openai import OpenAI

        from router.offline import Upstream

        with (
            Upstream(models=router.catalog) as upstream,
            Anthropic(base_url=upstream.url, api_key="offline") as claude,
            OpenAI(base_url=f"{upstream.url}/v1", api_key="offline") as gpt,
        ):
            clients = {name: claude if name == "anthropic" else gpt for name in router.fleet.providers}
            return complete(router, prompt, system=system, max_tokens=max_tokens, clients=clients)
    except Exception as exc:
        if "APIError" not in {cls.__name__ for cls in type(exc).__mro__}:
            raise
        raise ClientError(f"{type(exc).__name__} from the provider: {exc}") from exc


def _record_row(record: Record) -> dict[str, Any]:
    usage = record.usage
    return {
        "tier": record.tier,
        "model": record.model,
        "reason": record.reason,
        "fresh_tokens": usage.fresh_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_short_tokens + usage.cache_write_long_tokens,
        "output_tokens": usage.output_tokens,
        "cost_usd": _plain(record.cost_usd),
        "baseline_cost_usd": _plain(record.baseline_cost_usd),
        "saved_usd": _plain(record.saved_usd),
    }


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value


def _print_decisions(router: Router) -> None:
    click.echo("1. Decisions: local, no key, no network\n")
    texts = [call.text for call in demos.workload(60)]
    for text in sorted(set(texts), key=texts.index)[:8]:
        decision, elapsed_us = _timed(router, text)
        line = " ".join(text.split())
        line = line if len(line) <= 62 else f"{line[:61]}…"
        click.echo(f"  {line:<63}{decision.tier!s:<10}{decision.model:<19}{elapsed_us:5.0f} us")
    click.echo("")


def _print_report(report: dict[str, Any]) -> None:
    if not report["simulated"]:
        click.echo("2. Sent to the provider")
        _print_routed(report["routed"])
        return
    click.echo(
        f"\n2. {report['n_calls']} calls of a bot that gets {demos.CALLS_A_DAY:,} a day, 5,000-token system prompt, "
        f"operating point {report['operating_point']}\n"
        "   Sent through the anthropic SDK to an embedded upstream: REPLIES ARE SIMULATED, caching and bills follow\n"
        "   the providers' documented rules.\n"
    )
    click.echo(f"  {'tier':<10}{'model':<20}{'calls':>6}{'cache reads':>13}{'cost':>12}")
    for row in report["by_model"]:
        kinds = ("fresh_tokens", "cache_read_tokens", "cache_write_short_tokens", "cache_write_long_tokens")
        hit = row["cache_read_tokens"] / max(sum(row[kind] for kind in kinds), 1)
        click.echo(
            f"  {row['tier']:<10}{row['model']:<20}{row['n_requests']:>6}{hit:>12.0%} {_usd(row['cost_usd']):>11}"
        )
    _print_routed(report["routed"])
    click.echo(f"\n3. The same calls without routing, scaled to {demos.CALLS_A_DAY:,} calls\n")
    scale = Decimal(demos.CALLS_A_DAY) / report["n_calls"]
    cost = report["routed"]["cost_usd"]
    click.echo(f"  {'tierwise':<26}{_usd(cost * scale, 2):>11} a day")
    for name, usd in report["baselines_usd"].items():
        click.echo(f"  {name:<26}{_usd(usd * scale, 2):>11} a day   tierwise saves {1 - cost / usd:>7.1%}")
    click.echo(
        f"\n4. {report['openai']['n_calls']} of them through the openai SDK, fleet gpt: "
        f"{_usd(report['openai']['cost_usd'])}, {report['openai']['cache_read_share']:.0%} of input tokens from cache"
    )


def _print_routed(routed: dict[str, Any]) -> None:
    click.echo(
        f"\n  cost {_usd(routed['cost_usd'])}; {routed['cache_read_share']:.0%} of input tokens read from cache; "
        f"{routed['below_required_share']:.1%} of calls went below the tier they need, "
        f"{routed['above_required_share']:.1%} above"
    )
    if routed["records_match_bill"] is not None:
        verdict = "equals" if routed["records_match_bill"] else "DIFFERS FROM"
        click.echo(f"  the records' total {verdict} the upstream's bill ({_usd(routed['billed_by_upstream_usd'], 6)})")


def _usd(value: Decimal, places: int = 4) -> str:
    return f"${value:,.{places}f}"


if __name__ == "__main__":
    main()
