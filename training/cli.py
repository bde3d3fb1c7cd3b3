"""The commands that `training` adds to `tierwise`; each imports what it needs when it runs."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import click

from router.types import Tier

_MODELS = Path("models")
_CENSORED = (
    "saw the simple and the complex tier only: what simple does not do counts as complex, so moderate is hardly "
    "chosen; --by judge --moderate, or scores of a moderate model, tell more"
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_models = click.option(
    "--models",
    "models_folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=_MODELS,
    show_default=True,
    help="The folder of artifacts.",
)
_prompts = click.option(
    "--prompts",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Texts (query_id, text) for a file of scores (query_id, model, score).",
)
_tiers = click.option(
    "--tier", "tiers", multiple=True, metavar="TIER=MODEL,MODEL", help="Whose scores stand for a tier."
)


@click.command()
@click.option(
    "--labels",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Parquet, JSONL or CSV with labels.",
)
@_prompts
@_tiers
@click.option("--base", default=None, metavar="DIR", help="The prior; default: the shipped artifact.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The new artifact, such as models/mine-v1.")
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False), help="Default: ~/.cache/tierwise.")
@click.option("--min-gain", default=0.05, show_default=True, help="The least gain in held-out APGR worth a change.")
@click.option("--rehearsal", default=0.05, show_default=True, help="More of it keeps more of the base's behaviour.")
@click.option("--promote", "promote_too", is_flag=True, help="Promote it when it passes the gate.")
@_json
def retrain(
    labels: Path,
    prompts: Path | None,
    tiers: tuple[str, ...],
    base: str | None,
    out: Path,
    cache: Path | None,
    min_gain: float,
    rehearsal: float,
    promote_too: bool,
    as_json: bool,
) -> None:
    """Learn from labels of your own traffic, with the shipped model as prior, and ask the gate.

    The champion of the folder of --out serves on, whatever happens. Exit 1 when the gate refuses.

    \b
    Examples:
      tierwise retrain --labels labels.jsonl --out models/mine-v1
      tierwise retrain --labels scores.parquet --tier simple=small --tier complex=large --out models/mine-v1 --promote
    """
    from router import artifact
    from training import gate, promote
    from training import retrain as training

    started = time.monotonic()
    source, cache = _source(labels, prompts, tiers), cache or _cache()
    base_folder = artifact.find(base)
    pointer = promote.pointer_of(out.parent)
    taken = (pointer.champion, pointer.canary, *pointer.history)
    if out.name in taken or out.resolve() == base_folder.resolve():
        raise click.BadParameter(f"{out} serves, has served or is the base; choose another name", param_hint="--out")
    with _Bars() as progress:
        metrics, rows = training.learn(source, base_folder, out, cache, progress, rehearsal)
        report = gate.compare(promote.champion_of(out.parent), out, rows, min_gain, progress)
    gate.write(out, report)
    if as_json:
        checks = [{"name": c.name, "holds": c.holds, "found": c.found, "limit": c.limit} for c in report.checks]
        click.echo(json.dumps({"artifact": str(out), "passed": report.passed, "retrained": metrics, "gate": checks}))
    else:
        _print_retrained(out, metrics, report, pointer.champion)
        click.echo(f"took {time.monotonic() - started:.0f} s", err=True)
    if not report.passed:
        sys.exit(1)
    if promote_too:
        promote.promote(out.parent, out.name)
        click.echo(_serving(out.parent), err=as_json)
    elif not as_json:
        click.echo(f"promote it: tierwise models promote {out.name}{_folder_option(out.parent)}")


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--by",
    type=click.Choice(["outcomes", "judge", "ask", "hand"]),
    default="outcomes",
    show_default=True,
    help="Scores or feedback that are there; a blind comparison; a small model's word; you.",
)
@click.option("--by-hand", is_flag=True, help="The same as --by hand.")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="JSONL, added to.")
@click.option("--n", "n", default=300, show_default=True, type=click.IntRange(1), help="How many texts to choose.")
@click.option("--fleet", "-f", metavar="NAME", help="Whose cheap and top models answer; default: claude.")
@click.option("--judge", "judge_model", metavar="MODEL", help="Who compares; default: the fleet's top model.")
@click.option(
    "--moderate", is_flag=True, help="Compare the moderate tier, too, where the cheap one loses: up to twice the price."
)
@click.option("--batch", is_flag=True, help="As batches: half the price, within 24 hours.")
@click.option("--budget-usd", type=float, help="Never pay more than this, earlier runs of this --out included.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before paying.")
@click.option("--base", metavar="DIR", help="The artifact whose doubt chooses the texts; default: the shipped one.")
@_prompts
@_tiers
def label(
    source: Path,
    by: str,
    by_hand: bool,
    out: Path,
    n: int,
    fleet: str | None,
    judge_model: str | None,
    moderate: bool,
    batch: bool,
    budget_usd: float | None,
    yes: bool,
    base: str | None,
    prompts: Path | None,
    tiers: tuple[str, ...],
) -> None:
    """Turn traffic into labels for `tierwise retrain`. Parquet, JSONL or CSV with `text`, or `messages` as sent.

    --by outcomes takes all rows; the others choose texts where a label helps most. Run the same command again to go on
    after an interruption: nothing is paid for twice.

    \b
    Examples:
      tierwise label scores.parquet --tier simple=small --tier complex=large --out labels.jsonl
      tierwise label traffic.jsonl --by judge --moderate --n 500 --batch --budget-usd 20 --out labels.jsonl
      tierwise label traffic.jsonl --by hand --out labels.jsonl
    """
    from router import artifact
    from training import export
    from training import label as labels

    by = "hand" if by_hand else by
    with labels.Book(out) as book:
        if by == "outcomes":
            _label_from_outcomes(_source(source, prompts, tiers), book, artifact.find(base))
        else:
            queries = labels.choose(source, n, export.read_unfolded(artifact.find(base)))
            done = book.labelled({"hand": "by-hand"}.get(by, by))
            left = [query for query in queries if query.text not in done]
            click.echo(f"{len(queries)} texts chosen, {len(queries) - len(left)} labelled already", err=True)
            if by == "hand":
                _label_by_hand(left, book)
            elif left:
                _label_by_models(left, by, book, fleet, judge_model, moderate, batch, budget_usd, yes)
        for row in labels.agreement(book.labels):
            kappa = "not defined" if row["kappa"] is None else f"{row['kappa']:.2f}"
            click.echo(f"{' and '.join(row['methods'])} agree on {row['agree']:.0%} of {row['n']} texts, kappa {kappa}")
        click.echo(f"{len(book.labels)} labels in {out}")
        if n_censored := sum(row.censored for row in book.labels):
            click.echo(f"{n_censored} of them {_CENSORED}")


@click.group()
def models() -> None:
    """Artifacts: which serve, what they changed, promote and roll back."""


@models.command("list")
@_models
@_json
def list_models(models_folder: Path, as_json: bool) -> None:
    """The artifacts of the folder and the shipped one, with their role, and what users said of them."""
    from training import promote

    pointer, users = _heard(models_folder)
    rows = promote.listed(models_folder, users)
    if as_json:
        click.echo(json.dumps(rows))
        return
    click.echo(f"{'artifact':<24}{'role':<14}{'labels':>9}{'gate':>10}{'gain':>8}{'MB':>6}  sha256")
    for row in rows:
        gain = "-" if row["gain"] is None else f"{row['gain']:+.3f}"
        click.echo(
            f"{row['name']:<24}{row['role']:<14}{row['n_labels'] or '-':>9}{row['gate'] or '-':>10}{gain:>8}"
            f"{row['bytes'] / 1e6:>6.1f}  {row['sha256'][:12]}"
        )
    if users or pointer.canary:
        click.echo(f"users say   {promote.said(pointer, users, _folder_option(models_folder))}")


@models.command()
@click.argument("name")
@_models
@_json
def show(name: str, models_folder: Path, as_json: bool) -> None:
    """The card of an artifact, what the gate said and, while it serves, what users say; with --json its manifest."""
    from router import artifact
    from training import gate, promote

    folder = artifact.member(models_folder, name)
    if as_json:
        click.echo(json.dumps(json.loads((folder / "manifest.json").read_bytes())))
        return
    card = folder / "README.md"
    click.echo(card.read_text("utf-8") if card.is_file() else f"{folder} has no card")
    if report := gate.read(folder):
        _print_gate(report)
    pointer, users = _heard(models_folder)
    if name in (pointer.champion, pointer.canary) and (users or pointer.canary):
        click.echo(f"users say   {promote.said(pointer, users, _folder_option(models_folder))}")


@models.command()
@click.argument("one")
@click.argument("other")
@_models
@_json
def diff(one: str, other: str, models_folder: Path, as_json: bool) -> None:
    """What changes from ONE artifact to the OTHER: files, thresholds, and where our own queries would go.

    \b
    Example:
      tierwise models diff complexity-v2 mine-v1
    """
    from training import promote

    report = promote.diff(models_folder, one, other)
    if as_json:
        click.echo(json.dumps(report))
        return
    click.echo(f"files that differ: {', '.join(report['files_changed']) or 'none'}")
    for point, row in report["operating_points"].items():
        changes = ", ".join(
            f"{tier} {row['thresholds'][0][tier]:.3f} -> {row['thresholds'][1][tier]:.3f}"
            for tier in row["thresholds"][0]
        )
        click.echo(
            f"{point:<10}{changes}; of {report['n_queries']} queries {row['up']:.1%} go up, {row['down']:.1%} down"
        )


@models.command()
@click.argument("name")
@_models
@click.option("--canary", metavar="SHARE", help="Only this share of the conversations, such as 10%.")
@click.option("--force", is_flag=True, help="Although the gate did not pass it.")
def promote(name: str, models_folder: Path, canary: str | None, force: bool) -> None:
    """Let an artifact that passed the gate serve: at once, or a share of the conversations first.

    \b
    Examples:
      tierwise models promote mine-v1 --canary 10%
      tierwise models promote mine-v1
    """
    from training import promote as promotion

    promotion.promote(models_folder, name, share=None if canary is None else _share(canary), force=force)
    click.echo(_serving(models_folder))


@models.command()
@_models
@click.option(
    "--if-worse",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help='JSONL of feedback {"artifact", "conversation", "good"}: roll the canary back only when it is worse for sure.',
)
def rollback(models_folder: Path, if_worse: Path | None) -> None:
    """Take back the canary, or else the last promotion. With --if-worse: exit 1 when it stays."""
    from router.rollout import Verdict
    from training import promote as promotion

    if if_worse is not None:
        verdict, why = promotion.judged(models_folder, promotion.feedback(if_worse))
        click.echo(f"{verdict}: {why}", err=True)
        if verdict is not Verdict.ROLL_BACK:
            sys.exit(1)
    promotion.roll_back(models_folder)
    click.echo(_serving(models_folder))


def _heard(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The pointer of a folder and, since its canary began, what users said; that it cannot be read is no failure."""
    from router import settings
    from router.errors import TierwiseError
    from training import promote

    pointer = promote.pointer_of(folder)
    try:
        return pointer, promote.heard(settings.load(), pointer.since)
    except TierwiseError as exc:
        click.echo(str(exc), err=True)
        return pointer, {}


def _label_from_outcomes(source: Any, book: Any, base: Path) -> None:
    from training import export, label, traffic

    done = book.labelled("outcomes")
    with _Bars() as progress:
        total, n = traffic.count(source), 0
        is_feedback = "good" in traffic.columns(source.path)
        read = label.from_feedback(source, export.read_unfolded(base)) if is_feedback else label.from_outcomes(source)
        for batch in read:
            book.add([row for row in batch if row.text not in done])
            progress("labelling", n := n + len(batch), total)


def _label_by_hand(queries: list[Any], book: Any) -> None:
    from training import label

    def show(query: Any, number: int, total: int) -> None:
        text = query.text if len(query.text) <= 2000 else f"{query.text[:1500]}\n[...]\n{query.text[-500:]}"
        click.echo(f"\n--- {number} of {total} ---\n{text}\n")
        click.echo("s simple   m moderate   c complex   space skip   u undo   q stop", err=True)

    who = os.environ.get("USER") or "a person"
    label.by_hand(queries, book, who, lambda: click.getchar(), show)


def _label_by_models(
    queries: list[Any],
    by: str,
    book: Any,
    fleet: str | None,
    judge_model: str | None,
    moderate: bool,
    batch: bool,
    budget_usd: float | None,
    yes: bool,
) -> None:
    from decimal import Decimal

    from router import catalog, settings
    from training import label
    from training.calls import Caller, Journal, client_for
    from training.judge import Judge

    config = settings.load()
    models = catalog.configured(config.fleets, config.models)
    chosen = models.fleet(fleet or config.fleet or catalog.DEFAULT_FLEETS["anthropic"])
    judging = models.find(judge_model) if judge_model else None
    if judge_model and (judging is None or judging.provider != chosen.provider):
        raise click.BadParameter(
            f"{judge_model!r} is no model of {chosen.provider} in the catalog", param_hint="--judge"
        )
    if moderate and Tier.MODERATE not in chosen.models:
        raise click.BadParameter(f"the fleet {chosen.name!r} has no moderate tier", param_hint="--moderate")
    judge, client = Judge.of(chosen, judging, with_middle=moderate), client_for(chosen, is_batch=batch)
    most = label.most_usd(queries, by, judge, batch)
    limit = None if budget_usd is None else Decimal(str(budget_usd))
    how = "as batches at half the price" if batch else "call by call"
    click.echo(f"{len(queries)} texts through {chosen.provider}, {how}: at most ${most:.2f}", err=True)
    if limit is not None and most > limit:
        click.echo(f"above the budget of ${limit}: it stops before the budget is passed", err=True)
    if not yes:
        click.confirm("Pay up to that?", abort=True, err=True)
    size = len(queries) if batch else label.BLOCK
    with client, Journal(book.path.with_suffix(".journal.db")) as journal, _Bars() as progress:
        n_calls, n_done = len(queries) * (4 if by == "judge" else 1), 0

        def answered(n: int) -> None:
            nonlocal n_done
            n_done += n
            progress("answers", n_done, n_calls)

        caller = Caller(client, journal, is_batch=batch, budget_usd=limit, progress=answered)
        for start in range(0, len(queries), size):
            part = queries[start : start + size]
            if by == "judge":
                book.add(label.judge_labels(part, judge, caller))
            else:
                book.add(label.asked_labels(part, judge.cheap, caller))
        click.echo(f"spent ${journal.spent_usd:.4f} in all", err=True)


class _Bars:
    """A tqdm bar for each step, on stderr, only on a terminal."""

    def __init__(self) -> None:
        self._step, self._bar = "", None

    def __call__(self, step: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if step != self._step:
            self.__exit__()
            self._step, self._bar = step, tqdm(desc=step, total=total, file=sys.stderr, disable=None)
        if self._bar is not None:
            self._bar.total = max(total, done)
            self._bar.update(done - self._bar.n)

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _source(path: Path, prompts: Path | None, tiers: tuple[str, ...]) -> Any:
    from training.traffic import Source

    known: dict[str, Tier] = {}
    for given in tiers:
        tier, _, names = given.partition("=")
        if tier not in list(Tier) or not names:
            raise click.BadParameter(
                f"{given!r}: expected TIER=MODEL,MODEL; tiers: {', '.join(Tier)}", param_hint="--tier"
            )
        known |= dict.fromkeys(names.split(","), Tier(tier))
    return Source(path, prompts, known or None)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tierwise"


def _share(text: str) -> float:
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise click.BadParameter(f"{text!r}: expected a share such as 10% or 0.1", param_hint="--canary") from None


def _serving(folder: Path) -> str:
    from training.promote import pointer_of

    pointer = pointer_of(folder)
    canary = f", {pointer.canary} to {pointer.share:.0%} of the conversations" if pointer.canary else ""
    return f"{folder} serves {pointer.champion}{canary}; in tierwise.toml: artifact = {json.dumps(str(folder))}"


def _folder_option(folder: Path) -> str:
    return "" if folder == _MODELS else f" --models {shlex.quote(str(folder))}"


def _print_retrained(out: Path, metrics: dict[str, Any], report: Any, champion: str) -> None:
    conflicts, noise = metrics["conflicts"], metrics["noise"]
    shares = ", ".join(f"{tier} {share:.0%}" for tier, share in metrics["shares"].items())
    click.echo(
        f"labels      {metrics['n_labels']}: {metrics['n_training']} train, {metrics['n_held_out']} held out; {shares}"
    )
    if metrics["n_censored"]:
        click.echo(f"two tiers   {metrics['n_censored']} labels {_CENSORED}")
    if conflicts["repeated_texts"]:
        rows = "; ".join("rows " + ", ".join(map(str, rows)) for rows in conflicts["examples_by_row"][:3])
        disagree = f", {conflicts['conflicting_texts']} with labels that disagree ({rows})" if rows else ""
        click.echo(f"repeated    {conflicts['repeated_texts']} texts{disagree}: {conflicts['decision']}")
    if noise["share"]:
        first = ", ".join(map(str, noise["rows"][:5]))
        click.echo(f"doubtful    {noise['share']:.1%} of {noise['n_sure']} sure labels look wrong, rows {first} first")
    click.echo(f"champion    {champion:<22} APGR {report.apgr['champion']:.3f} on the held-out texts")
    click.echo(f"challenger  {out.name:<22} APGR {report.apgr['challenger']:.3f}")
    _print_gate(report)


def _print_gate(report: Any) -> None:
    click.echo(f"gate        {'passed' if report.passed else 'REFUSED'}")
    for check in report.checks:
        click.echo(f"  {'ok' if check.holds else 'NO':<4}{check.name:<26}{check.found}; limit: {check.limit}")
