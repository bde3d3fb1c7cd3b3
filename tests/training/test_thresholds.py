from __future__ import annotations

import datetime as dt
import json
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from router import Ledger, Reason, Record, Router, SettingsError, Tier, Usage, catalog
from router.classifier import artifact
from training.build import corpora, training_set
from training.commands.tune import tune
from training.rows.errors import LabelError
from training.thresholds import losses, operating_point, risk, scores, search, tradeoff
from training.thresholds.risk import Evidence
from training.thresholds.search import Target
from training.thresholds.tradeoff import Costs, Problem, Refused

FLEET = catalog.shipped().fleet("claude")
COSTS = Costs(FLEET, on=dt.date(2026, 11, 22))
MIX = (0.7, 0.2, 0.1)


def population(n: int, seed: int, mix: tuple[float, float, float] | None = None) -> Problem:
    """Rows whose scores are honest: required tiers are drawn from the probabilities."""
    chance = np.random.default_rng(seed)
    p = chance.dirichlet([2.5, 0.6, 0.4], n)
    required = (chance.random(n)[:, None] > p.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    q = p.cumsum(axis=1)
    q[:, 2] = 1
    loss = (np.arange(3) < required[:, None]).astype(float)
    return Problem(q, loss, COSTS, np.zeros(n, bool), required, mix)


@pytest.mark.parametrize("mix", [None, MIX], ids=["as drawn", "weighted"])
def test_the_guarantee_holds(monkeypatch: pytest.MonkeyPatch, mix: tuple[float, float, float] | None) -> None:
    """Over 1,000 draws of labels (300 of the weighted ones) the target is missed in at most 1 - confidence."""
    monkeypatch.setattr(tradeoff, "N_LEVELS", 13)
    n_draws, confidence = (1000 if mix is None else 300), 0.9
    everyone = population(100_000, seed=-1 % 2**32, mix=mix)
    target = Target.parse("quality>=0.9")
    missed, chosen = 0, 0
    for seed in range(n_draws):
        try:
            thresholds, *_ = search.choose_thresholds(population(300, seed, mix), target, confidence, seed)
        except Refused:
            continue
        chosen += 1
        missed += everyone.evidence(thresholds).mean > 0.1
    monte_carlo = 3 * np.sqrt((1 - confidence) * confidence / n_draws)
    assert missed / n_draws <= 1 - confidence + monte_carlo
    assert chosen > 0.8 * n_draws  # it is no guarantee to refuse always
    assert missed > 0  # nor to be so careful that the labels are wasted


def test_without_the_tests_the_target_would_be_missed() -> None:
    """Taking the cheapest point whose observed loss is within the target, as one would, misses it every other time."""
    everyone, missed = population(100_000, seed=7), 0
    for seed in range(60):
        rows = population(150, seed)
        within = [t for t in tradeoff.frontier(rows) if rows.evidence(t).mean <= 0.1]
        missed += everyone.evidence(within[-1]).mean > 0.1
    assert missed / 60 > 0.3


@given(st.integers(0, 60), st.integers(1, 60), st.floats(0.01, 0.99))
def test_one_stratum_is_the_exact_binomial_test(k: int, n: int, target: float) -> None:
    seen = Evidence((float(min(k, n)),), (n,))
    assert seen.p_value(target) == pytest.approx(binomtest(min(k, n), n, target, "less").pvalue, abs=1e-9)
    low, high = seen.interval(0.95)
    exact = binomtest(min(k, n), n).proportion_ci(0.95, "exact")
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=1e-3)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.02, 0.3), st.floats(0.02, 0.4), st.integers(0, 2**31))
def test_two_strata_reject_a_true_risk_no_more_often_than_they_may(r1: float, r2: float, seed: int) -> None:
    chance, shares = np.random.default_rng(seed), (0.2, 0.1)
    true = 0.2 * r1 + 0.1 * r2
    drawn = zip(chance.binomial(80, r1, 400), chance.binomial(50, r2, 400), strict=True)
    rejected = sum(Evidence((float(a), float(b)), (80, 50), shares).p_value(true) <= 0.1 for a, b in drawn)
    assert rejected / 400 <= 0.1 + 4 * np.sqrt(0.09 / 400)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.3, 3), st.floats(0.3, 9), st.integers(0, 2**31))
def test_losses_between_0_and_1_are_bounded(a: float, b: float, seed: int) -> None:
    draws = np.random.default_rng(seed).beta(a, b, (300, 60))
    rejected = sum(Evidence.of(loss).p_value(a / (a + b)) <= 0.1 for loss in draws)
    assert rejected / 300 <= 0.1 + 4 * np.sqrt(0.09 / 300)


@pytest.mark.parametrize("total", [(0.0,), (7.3,), (50.0,)])
def test_intervals_hold_the_observed_risk(total: tuple[float]) -> None:
    low, high = Evidence(total, (50,), binary=False).interval(0.95)
    assert 0 <= low <= total[0] / 50 <= high <= 1


def test_rows_needed_are_enough() -> None:
    seen = Evidence((5.0,), (300,))
    assert seen.p_value(0.025) > 0.05
    factor = risk.rows_needed(seen, 0.025, 0.05)
    assert factor is not None
    assert seen.scaled(factor).p_value(0.025) <= 0.05
    assert risk.rows_needed(Evidence((30.0,), (300,)), 0.05, 0.05) is None


def test_choices_meet_their_targets_on_the_population() -> None:
    rows, everyone = population(3000, 1), population(100_000, 2)
    quality = search.choose_point(rows, Target.parse("quality>=0.9"), 0.95)
    assert 1 - everyone.lost(quality.thresholds).mean() >= 0.9
    assert quality.interval[0] <= quality.risk <= quality.interval[1]
    assert quality.cost_interval[0] <= quality.cost <= quality.cost_interval[1] < 1
    cost = search.choose_point(rows, Target.parse("cost<=0.5"), 0.95)
    assert COSTS.at(everyone.shares(cost.thresholds)) <= 0.5
    share = search.choose_point(rows, Target.parse("share=70,20,10"), 0.95)
    assert everyone.shares(share.thresholds) == pytest.approx(MIX, abs=0.04)


def test_more_confidence_costs_more() -> None:
    rows = population(2000, 3)
    costs = [
        search.choose_point(rows, Target.parse("quality>=0.9"), confidence).cost for confidence in (0.6, 0.9, 0.999)
    ]
    assert costs == sorted(costs)


@pytest.mark.parametrize(
    ("n", "target", "message"),
    [
        (80, "quality>=0.97", r"even without one loss 40 rows of proof .* about 202 labels are the least"),
        (400, "quality>=0.995", r"cannot support quality >= 0.995 with 95% confidence"),
        (2000, "cost<=0.15", r"the cheapest point costs about 0\.2"),
        (60, "share=70,20,10", r"give about \d+ more rows"),
        (10, "quality>=0.9", "10 labels are too few"),
    ],
)
def test_what_the_labels_cannot_support_is_refused(n: int, target: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        search.choose_point(population(n, 4), Target.parse(target), 0.95)


def test_what_is_refused_says_the_highest_target_that_is_supported() -> None:
    rows = population(400, 4)
    with pytest.raises(Refused) as refused:
        search.choose_point(rows, Target.parse("quality>=0.995"), 0.95)
    lower = refused.value.supported
    assert lower is not None
    assert f"; {lower} is supported, at a cost of 0." in str(refused.value)
    assert search.choose_point(rows, Target.parse(lower), 0.95).cost < 1
    with pytest.raises(Refused):
        search.choose_point(rows, Target("quality", (Target.parse(lower).values[0] + 0.01,)), 0.95)


def test_a_tier_that_is_not_used_gets_a_threshold_that_settings_take(tmp_path: Path) -> None:
    """Scores of two tiers say nothing of the third; the point that comes of them serves."""
    path = write(tmp_path, "s.csv", text=TEXTS, simple=[float(t == "simple") for t in TIERS], complex=[1.0] * 400)
    report = json.loads(run("--labels", path, "--target", "quality>=0.6", "--json").output)
    assert report["choice"]["thresholds"][1] == tradeoff.NEVER
    assert (
        tomllib.loads((tmp_path / "tierwise.toml").read_text())["operating_points"]["mine"]["thresholds"]["moderate"]
        == 1
    )
    router = Router.load(operating_point="mine")
    assert Tier.MODERATE not in {router.decide(text).tier for text in TEXTS}


def test_scores_that_tie_cannot_be_divided() -> None:
    rows = population(1000, 5)
    tied = Problem(np.round(rows.q, 0), rows.loss, COSTS, rows.novel, rows.required)
    with pytest.raises(Refused, match="no thresholds give share"):
        search.choose_point(tied, Target.parse("share=50,30,20"), 0.95)


def test_rows_out_of_distribution_go_to_the_top() -> None:
    rows = population(100, 6)
    novel = np.arange(100) < 30
    assert (Problem(rows.q, rows.loss, COSTS, novel).chosen((0.0, 0.0))[:30] == 2).all()


def test_a_frontier_goes_from_safe_to_cheap() -> None:
    rows = population(800, 8)
    path = tradeoff.frontier(rows)
    lost = [rows.lost(thresholds).mean() for thresholds in path]
    assert lost == sorted(lost)
    assert lost[0] == 0
    assert len(path) > 20


def test_curves_put_honest_scores_above_random_ones() -> None:
    rows = population(2000, 9)
    random = Problem(scores.of_ranks(np.random.default_rng(0).random(2000)), rows.loss, COSTS, rows.novel)

    def cost_at(problem: Problem) -> float:
        return min(point["cost"] for point in tradeoff.cost_quality_curve(problem) if point["quality"] >= 0.9)

    assert cost_at(rows) < cost_at(random) - 0.1


@pytest.mark.parametrize("text", ["quality<=0.9", "quality>=2", "cost<=x", "share=1,2,3", "speed>=1", ""])
def test_wrong_targets_are_named(text: str) -> None:
    done = CliRunner().invoke(tune, ["--labels", "x.csv", "--target", text])
    assert done.exit_code == 2
    assert "expected" in done.output


TEXTS = [f"{'prove that' if n % 3 == 0 else 'name'} thing number {n}{' and explain why' * (n % 5)}" for n in range(400)]
TIERS = ["complex" if n % 3 == 0 else "simple" for n in range(400)]


def write(folder: Path, name: str, **columns: Any) -> Path:
    path, frame = folder / name, pd.DataFrame(columns)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_labels_are_read_alike_from_every_format(tmp_path: Path, name: str) -> None:
    read = losses.read_losses(write(tmp_path, name, text=TEXTS, tier=TIERS, language=["en"] * 400), FLEET)
    assert read.texts == TEXTS
    assert read.required is not None
    assert read.loss[:2].tolist() == [[1, 1, 0], [0, 0, 0]]
    assert read.frame["language"].tolist() == ["en"] * 400


def test_a_tier_is_read_whatever_its_case_and_the_blanks_around_it(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", text=["hi", "prove it"], tier=[" simple ", "COMPLEX"])
    assert losses.read_losses(path, FLEET).loss.tolist() == [[0, 0, 0], [1, 1, 0]]


def test_outcomes_are_losses_against_the_top_tier(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", text=["x", "y"], simple=[1.0, 0.2], **{"claude-opus-4-7": [0.4, 0.9]})
    assert losses.read_losses(path, FLEET).loss == pytest.approx(
        np.array([[0, np.nan, 0], [0.7, np.nan, 0]]), nan_ok=True
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["x"]}, "no column tier, and no scores .* in columns simple or claude-haiku"),
        ({"tier": ["simple"]}, "no column text or prompt or query; it has tier; .*--text-column"),
        ({"text": ["x", ""], "tier": ["simple"] * 2}, "row 3: there is no text"),
        ({"text": ["x"], "tier": ["easy"]}, r"row 2 \(.x.\): tier 'easy' is none of simple, moderate, complex"),
        ({"text": ["x"], "simple": [3], "complex": [1]}, r"row 2 \(.x.\): simple is 3, expected 0 to 1"),
    ],
)
def test_mistakes_in_labels_are_named(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        losses.read_losses(write(tmp_path, "a.csv", **columns), FLEET)
    with pytest.raises(LabelError, match="is not there"):
        losses.read_losses(tmp_path / "gone.csv", FLEET)
    (tmp_path / "a.xls").write_bytes(b"old")
    with pytest.raises(LabelError, match=r"the format '.xls' is not known; .*; save it as .xlsx"):
        losses.read_losses(tmp_path / "a.xls", FLEET)


def test_rows_that_the_model_was_trained_on_are_refused() -> None:
    own = losses.read_losses(corpora.QUERIES, FLEET)
    with pytest.raises(LabelError, match="was trained on"):
        losses.check_unseen(own, artifact.load().manifest)


def test_the_shipped_scores_cover_our_queries_and_are_calibrated() -> None:
    own = losses.read_losses(corpora.QUERIES, FLEET)
    q = losses.read_scores(corpora.OUT_OF_FOLD, own)
    rows = Problem.of(own, q, COSTS, mix=MIX)
    assert q.shape == (2340, 3)
    as_rated = [training_set.AS_RATED[tier][0] for tier in Tier]
    assert rows.weights() @ q[:, 0] == pytest.approx(float(np.dot((0.7, 0.2, 0.1), as_rated)), abs=0.04)
    with pytest.raises(LabelError, match="joined to labels by id"):
        losses.read_scores(corpora.QUERIES, own)


def ledger(path: Path, hits: float, n: int = 400) -> None:
    """Records 10 s apart, of which a share found a prefix of 4,000 tokens warm."""
    with Ledger(path) as store:
        for i in range(n):
            warm = i < hits * n
            usage = Usage(300, 4000 if warm else 0, 0 if warm else 4000, 0, 250)
            at = dt.datetime(2026, 11, 22, tzinfo=dt.UTC) + dt.timedelta(seconds=10 * i)
            zero = Decimal(0)
            model = FLEET.top.id
            store.write(Record(at, Tier.COMPLEX, model, Reason.SUFFICES, {}, usage, zero, model, zero, zero))


def test_costs_come_from_records(tmp_path: Path) -> None:
    for hits in (0.5, 0.95):
        ledger(tmp_path / f"{hits}.db", hits)
        load, n = tradeoff.workload_of(tmp_path / f"{hits}.db", FLEET)
        assert (n, load.prefix_tokens, load.user_tokens, load.output_tokens) == (400, 4000, 300, 250)
        assert 1 - np.exp(-300 / load.gap_s) == pytest.approx(hits, abs=0.01)  # not 10 s: what explains the hits
    with pytest.raises(LabelError, match="is no ledger"):
        tradeoff.workload_of(tmp_path / "gone.db", FLEET)
    Ledger(tmp_path / "empty.db").close()
    with pytest.raises(LabelError, match="holds 0 records of the fleet 'claude'"):
        tradeoff.workload_of(tmp_path / "empty.db", FLEET)


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(tune, list(map(str, args)), catch_exceptions=False)


OWN = ("--labels", corpora.QUERIES, "--scores", corpora.OUT_OF_FOLD, "--mix", "70,20,10")


def test_the_command_writes_a_point_that_decide_uses(tmp_path: Path) -> None:
    (tmp_path / "tierwise.toml").write_text('# ours\nfleet = "claude"  # kept\n')
    done = run(*OWN, "--target", "quality>=0.95")
    assert "quality >= 0.95 with 95% confidence" in done.output
    text = (tmp_path / "tierwise.toml").read_text()
    assert text.startswith('# ours\nfleet = "claude"  # kept\n')
    point = tomllib.loads(text)["operating_points"]["mine"]
    assert point["confidence"] == 0.95
    assert point["interval"][0] <= point["achieved"] <= point["interval"][1]
    router = Router.load(operating_point="mine")
    decision = router.decide("Translate 'good morning' into Dutch")
    assert (decision.tier, decision.operating_point) == (Tier.SIMPLE, "mine")
    assert (
        router.policy.champion.manifest.operating_points["mine"].thresholds[Tier.SIMPLE]
        == point["thresholds"]["simple"]
    )


def test_without_a_target_the_curve_is_printed_and_nothing_written(tmp_path: Path) -> None:
    done = run(*OWN)
    assert "Choose with --target" in done.output
    points = json.loads(run(*OWN, "--json").output)["curve"]
    assert [point["cost"] for point in points] == sorted((point["cost"] for point in points), reverse=True)
    assert all(point["interval"][0] <= point["quality"] <= point["interval"][1] for point in points)
    assert not (tmp_path / "tierwise.toml").exists()


def test_labels_of_ones_own_are_scored_by_the_artifact(tmp_path: Path) -> None:
    path = write(tmp_path, "mine.csv", text=TEXTS, tier=TIERS)
    report = json.loads(run("--labels", path, "--target", "quality>=0.8", "--json", "--dry-run").output)
    assert (report["written_to"], report["n_rows"]) == (None, 400)
    assert report["choice"]["target"] == "quality >= 0.8"
    ledger(tmp_path / "ledger.db", 0.9)
    paid = json.loads(run("--labels", path, "--records", tmp_path / "ledger.db", "--json").output)
    assert (paid["n_records"], paid["workload"]["prefix_tokens"]) == (400, 4000)


def test_a_rule_is_fitted_written_and_used(tmp_path: Path) -> None:
    tiers = ["complex" if n % 3 == 0 or n % 5 > 3 else "simple" for n in range(400)]
    path = write(tmp_path, "mine.csv", text=TEXTS, tier=tiers)
    args = ("--labels", path, "--classifier", "rules", "--terms", "prove that", "--target", "quality>=0.9")
    report = json.loads(run(*args, "--json").output)
    assert report["max_words"] == 13  # "name thing number 3" and three times "and explain why"
    assert report["n_wrong"] == 0
    router = Router.load()
    for text, tier in zip(TEXTS[:20], tiers, strict=False):
        assert (router.decide(text).tier, router.decide(text).reason) == (tier, Reason.RULE)
    wrong = json.loads(run(*args[:-1], "quality>=0.5", "--json").output)
    assert wrong["n_wrong"] == sum(n % 5 > 3 and n % 3 > 0 for n in range(400))
    assert wrong["worst"][0]["required"] == "complex"
    again = tomllib.loads((tmp_path / "tierwise.toml").read_text())["rules"]
    assert [rule["name"] for rule in again] == [operating_point.SHORT, operating_point.OTHER]


def test_a_broken_settings_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("fleet = [")
    with pytest.raises(SettingsError, match="nothing was written"):
        operating_point.write_rules(tmp_path / "broken.toml", 5, ())
    assert (tmp_path / "broken.toml").read_text() == "fleet = ["


def test_help_shows_examples() -> None:
    assert 'tierwise tune --labels labels.csv --target "cost<=0.4"' in CliRunner().invoke(tune, ["--help"]).output
