from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from router import Tier
from tests.training.corpora import REAL, write_corpora
from training.build import corpora, training_set

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
    rows = training_set.training_rows(tmp_path)
    assert np.allclose(rows.targets.sum(axis=1), 1)
    assert (rows.targets >= 0).all()
    assert set(rows.sources) == set(training_set.ROW_WEIGHT)
    assert set(rows.datasets[rows.sources == "ratings"]) == {"arena_hard_1k", "zeroeval", *REAL}
    assert not any("unshippable" in text for text in rows.texts)
    for source, weight in training_set.ROW_WEIGHT.items():
        assert set(rows.weights[rows.sources == source]) == {weight}
    pairs = list(zip(rows.sources, rows.texts, strict=True))
    assert len(set(pairs)) == len(pairs)


def test_real_requests_come_with_their_ratings(tmp_path: Path) -> None:
    write_corpora(tmp_path)
    rows = training_set.training_rows(tmp_path)
    real = rows.select(rows.real)
    assert set(real.datasets) == set(REAL)
    hard = np.array(["derive" in text for text in real.texts])
    assert real.targets[hard] == pytest.approx(np.tile([0.4, 0.2, 0.4], (hard.sum(), 1)))
    assert real.targets[~hard, 0] == pytest.approx(0.95)


def test_a_translation_belongs_to_its_source(tmp_path: Path) -> None:
    write_corpora(tmp_path)
    rows = training_set.training_rows(tmp_path)
    translated = rows.select(rows.sources == "translations")
    assert set(translated.datasets) == {"arena_cje"}
    assert set(translated.groups) <= set(rows.ids[rows.sources == "ratings"])
    assert not translated.real.any()


def test_variants_keep_target_and_group(tmp_path: Path) -> None:
    write_corpora(tmp_path)
    rows = training_set.training_rows(tmp_path)
    variants = rows.select(rows.sources == "variants")
    own = {i: n for n, i in enumerate(rows.ids) if rows.sources[n] in ("tierwise_queries", "requests")}
    assert len(variants) >= len(own) - 5
    assert len(set(variants.texts) - {rows.texts[n] for n in own.values()}) >= 0.9 * len(variants)
    for i, text, target, group in zip(variants.ids, variants.texts, variants.targets, variants.groups, strict=True):
        origin = own[i]
        lost = Counter(filter(str.isalnum, rows.texts[origin])) - Counter(filter(str.isalnum, text))
        assert lost.total() <= 3  # mistyped at most; manners, layout and pasted passages only add
        assert (target == rows.targets[origin]).all()
        assert group == rows.groups[origin]


def test_outcomes_count_how_far_weaker_models_fall_behind(tmp_path: Path) -> None:
    write_corpora(tmp_path)
    rows = training_set.training_rows(tmp_path)
    target = dict(zip(rows.ids, rows.targets, strict=True))
    assert target["ikp-0"] == pytest.approx([1, 0, 0])  # every model is right: the weak one is as good as the strong
    assert target["ikp-1"] == pytest.approx([0.5, 0.2, 0.3])
    assert "a probe of one form" not in rows.texts


def test_pairs_share_a_group(tmp_path: Path) -> None:
    write_corpora(tmp_path)
    rows = training_set.training_rows(tmp_path)
    own = rows.select(rows.sources == "tierwise_queries")
    assert Counter(Counter(own.groups).values())[1] < len(own)


def test_provenance_names_licence_and_hash_of_each_source(tmp_path: Path) -> None:
    write_corpora(tmp_path)
    lines = training_set.provenance(training_set.training_rows(tmp_path), tmp_path)
    assert [line["source"] for line in lines] == list(training_set.ROW_WEIGHT)
    assert all(len(str(line["sha256"])) == 64 and line["licence"] for line in lines)
    assert "arena_cje: MIT" in str(lines[0]["licence"])


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


def test_missing_corpora_are_named(tmp_path: Path) -> None:
    with pytest.raises(corpora.CorporaMissing, match=r"prompts\.parquet.*--corpora"):
        training_set.training_rows(tmp_path)


def test_prompts_that_nobody_rated_come_for_teachers(tmp_path: Path) -> None:
    write_corpora(tmp_path)
    rows = training_set.training_rows(tmp_path)
    unrated = training_set.unrated(tmp_path, rows)
    assert len(unrated.texts) == len(unrated.datasets) == len(unrated.weights)
    assert {"mmlu_pro", "llmrouter_uiuc"} <= set(unrated.datasets)  # not a rating among them
    assert not {"zeroeval", "bfcl_v1"} & set(unrated.datasets)  # rated; of no licence
    assert not set(rows.texts) & set(unrated.texts)
    assert unrated.texts == training_set.unrated(tmp_path, rows).texts


def test_an_excerpt_is_some_sentences_in_a_row() -> None:
    chance = np.random.default_rng(0)
    text = "One sentence here. Another one there. A third to close. And one that is the last of all."
    parts = {training_set._excerpt(text, chance) for _ in range(50)}
    assert len(parts) > 4 and all(part in text for part in parts)
    assert training_set._excerpt("Two sentences. No more of them here.", chance) == ""
