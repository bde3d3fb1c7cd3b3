from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from router import Tier
from tests.training.corpora import REAL, write_corpora
from training.build import corpora

QUERIES = corpora.queries()


def test_queries_keep_what_the_datasheet_promises() -> None:
    assert len(QUERIES) >= 600
    assert QUERIES["id"].is_unique
    assert QUERIES["text"].is_unique
    assert QUERIES["why"].str.len().min() > 5
    assert QUERIES["category"].nunique() >= 20
    assert QUERIES["language"].nunique() >= 12
    shares = QUERIES["tier"].value_counts(normalize=True)
    assert set(shares.index) == set(Tier)
    assert shares.min() > 0.25


@pytest.mark.parametrize("tier", list(Tier))
def test_every_tier_has_short_and_long_queries(tier: Tier) -> None:
    n_words = QUERIES[QUERIES["tier"] == tier]["text"].str.split().str.len()
    assert (n_words < 13).sum() >= 20
    assert (n_words > 120).sum() >= 20


def test_pairs_differ_in_tier() -> None:
    tiers = QUERIES.dropna(subset=["pair"]).groupby("pair")["tier"].agg(["nunique", "size"])
    assert len(tiers) >= 50
    assert (tiers["nunique"] >= 2).all()


def test_no_query_repeats_another() -> None:
    """No templates: hardly any two texts share a run of eight words."""
    seen: Counter[tuple[str, ...]] = Counter()
    for text in QUERIES["text"]:
        words = text.lower().split()
        seen.update({tuple(words[i : i + 8]) for i in range(len(words) - 7)})
    shared = [run for run, n in seen.items() if n > 2]
    assert len(shared) < 20, shared[:5]


def test_a_bad_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "queries.jsonl"
    path.write_text(json.dumps({"text": "x", "tier": "huge"}))
    with pytest.raises(ValueError, match=r"queries\.jsonl:1: tier 'huge'"):
        corpora.queries(path)


def test_training_rows_take_permissive_rows_only(tmp_path: Path) -> None:
    write_corpora(tmp_path)
    rows = corpora.training_rows(tmp_path)
    assert np.allclose(rows.targets.sum(axis=1), 1)
    assert (rows.targets >= 0).all()
    assert set(rows.sources) == set(corpora.SOURCE_WEIGHT)
    assert set(rows.datasets[rows.sources == "annotations"]) == {"arena_hard_1k"}
    assert not any("unshippable" in text for text in rows.texts)
    for source, weight in corpora.SOURCE_WEIGHT.items():
        assert rows.weights[rows.sources == source].sum() == pytest.approx(weight)
    pairs = list(zip(rows.sources, rows.texts, strict=True))
    assert len(set(pairs)) == len(pairs)


def test_variants_keep_target_and_group(tmp_path: Path) -> None:
    write_corpora(tmp_path)
    rows = corpora.training_rows(tmp_path)
    variants = rows.select(rows.sources == "variants")
    labelled = {i: n for n, i in enumerate(rows.ids) if rows.sources[n] in ("tierwise_queries", "annotations")}
    assert len(variants) >= len(labelled) - 5
    assert len(set(variants.texts) - {rows.texts[n] for n in labelled.values()}) >= 0.9 * len(variants)
    for i, text, target, group in zip(variants.ids, variants.texts, variants.targets, variants.groups, strict=True):
        origin = labelled[i]
        lost = Counter(filter(str.isalnum, rows.texts[origin])) - Counter(filter(str.isalnum, text))
        assert lost.total() <= 3  # mistyped at most; manners and layout only add
        assert (target == rows.targets[origin]).all()
        assert group == rows.groups[origin]


def test_targets_follow_the_gain_not_the_difficulty(tmp_path: Path) -> None:
    write_corpora(tmp_path)
    rows = corpora.training_rows(tmp_path)
    target = dict(zip(rows.ids, rows.targets, strict=True))
    assert target["mmlu_pro-0"][0] == pytest.approx(1.0)  # every model fails: the cheapest is as good as the best
    assert target["mmlu_pro-1"][0] == pytest.approx(0.0)  # only strong models are right


def test_pairs_share_a_group(tmp_path: Path) -> None:
    write_corpora(tmp_path)
    rows = corpora.training_rows(tmp_path)
    own = rows.select(rows.sources == "tierwise_queries")
    assert Counter(Counter(own.groups).values())[1] < len(own)


def test_provenance_names_licence_and_hash_of_each_source(tmp_path: Path) -> None:
    write_corpora(tmp_path)
    lines = corpora.provenance(corpora.training_rows(tmp_path), tmp_path)
    assert [line["source"] for line in lines] == list(corpora.SOURCE_WEIGHT)
    assert all(len(str(line["sha256"])) == 64 and line["licence"] for line in lines)


def test_annotations_are_kept_by_id_only() -> None:
    lines = [json.loads(line) for line in corpora.ANNOTATIONS.read_text("utf-8").splitlines()]
    assert len({line["query_id"] for line in lines}) >= 4000
    assert sum(line["pass"] == 2 for line in lines) >= 400
    for line in lines:
        assert set(line) == {"query_id", "pass", "p_small", "p_mid", "tier", "why"}
        assert 0 <= line["p_small"] <= line["p_mid"] <= 1
        assert line["tier"] in list(Tier)
        assert len(line["why"].split()) <= 5


def test_our_own_rated_requests_keep_what_the_datasheet_promises() -> None:
    own = pd.read_json(corpora.REQUESTS, lines=True)
    assert own["id"].is_unique
    assert own["text"].is_unique
    assert (own["p_small"] <= own["p_mid"]).all()
    assert own["p_small"].between(0, 1).all()
    assert len(own) >= 2400
    assert own["language"].nunique() >= 14
    assert not set(own["text"]) & set(QUERIES["text"])


def test_ratings_are_kept_by_id_only() -> None:
    rated = pd.read_csv(corpora.RATINGS)
    assert list(rated.columns) == ["query_id", "rater", "p_small", "p_mid"]
    assert rated["query_id"].nunique() >= 7400
    assert not rated.duplicated(["query_id", "rater"]).any()
    assert (rated["p_small"] <= rated["p_mid"]).all()


def test_real_requests_come_with_their_ratings(tmp_path: Path) -> None:
    write_corpora(tmp_path)
    real = corpora.real_requests(tmp_path)
    assert sorted(set(real.datasets)) == sorted(REAL)
    assert set(real.families) == {"arena", "oasst"}
    hard = np.array(["derive" in text for text in real.texts])
    assert set(real.p_small[hard]) == {0.4}
    assert set(real.p_mid[~hard]) == {0.99}


def test_missing_corpora_are_named(tmp_path: Path) -> None:
    with pytest.raises(corpora.CorporaMissing, match=r"prompts\.parquet.*--corpora"):
        corpora.training_rows(tmp_path)
