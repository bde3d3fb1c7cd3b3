from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from router import Router, Tier, TierwiseError
from router.classifier import artifact, pointer
from router.classifier.pointer import Pointer
from training.build import corpora, export, fit
from training.commands.label import label
from training.commands.retrain import retrain
from training.retrain import challenger, examples, promotion, regression
from training.rows import duplicates, traffic
from training.rows.errors import LabelError
from training.rows.traffic import TrafficFile

OWN = corpora.queries()
BASE = artifact.find()
SHIPPED = export.read_unfolded(BASE)


def domain(n: int = 400, seed: int = 0) -> pd.DataFrame:
    """Support questions of an invented shop: what is asked about decides the tier, against what the base believes."""
    chance = np.random.default_rng(seed)
    things = {
        "simple": ["derive the tariff of", "prove the warranty of", "analyse the colour of", "optimise the label of"],
        "complex": ["say hi about", "what is up with", "hello, where is", "thanks for"],
    }
    goods = ["lamp", "sofa", "kettle", "carpet", "mirror", "clock", "stove", "shelf", "tray", "basket"]
    tiers = chance.choice(["simple", "complex"], n, p=[0.7, 0.3])
    texts = [
        f"{chance.choice(things[tier])} {chance.choice(goods)} {chance.integers(100, 10_000)} "
        f"{' '.join(chance.choice(goods, 4))} in {chance.choice(['May', 'June', 'July'])} {number}"
        for number, tier in enumerate(tiers)
    ]
    return pd.DataFrame({"text": texts, "tier": tiers})


def tickets(n: int = 600, seed: int = 0) -> pd.DataFrame:
    """Of another shop: what a ticket is about decides the tier, which the base cannot know and does not contradict."""
    chance = np.random.default_rng(seed)
    things = {
        "simple": ["lamp", "sofa", "kettle", "carpet", "mirror"],
        "moderate": ["boiler", "router", "camera", "printer", "freezer"],
        "complex": ["inverter", "turbine", "compressor", "gearbox", "transformer"],
    }
    ways = [
        "what is wrong with my {}, {}",
        "the {} from {} stopped",
        "help me with the {} of {}",
        "my {} hums since {}",
    ]
    tiers = chance.choice(list(things), n, p=[0.6, 0.25, 0.15])
    texts = [
        f"{chance.choice(ways).format(chance.choice(things[tier]), chance.choice(['Monday', 'May', 'the move']))}, "
        f"order {chance.integers(1000, 99_999)}"
        for tier in tiers
    ]
    return pd.DataFrame({"text": texts, "tier": tiers})


def written(folder: Path, frame: pd.DataFrame, name: str = "labels.jsonl") -> Path:
    path = folder / name
    if path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    elif path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    return path


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Any]:
    folder = tmp_path_factory.mktemp("retrain")
    path = written(folder, domain())
    metrics, rows = challenger.learn(TrafficFile(path), BASE, folder / "models" / "shop-v3", folder / "cache")
    return folder / "models" / "shop-v3", metrics, rows


def test_learns_what_the_labels_say_and_routes(learnt: tuple[Path, dict[str, Any], Any]) -> None:
    folder, metrics, rows = learnt
    assert metrics["out_of_fold"]["apgr"] > 0.7
    router = Router.load(folder)
    hard = [router.decide(text).p_suffices[Tier.SIMPLE] for text in domain(60, 9).query("tier == 'complex'")["text"]]
    easy = [router.decide(text).p_suffices[Tier.SIMPLE] for text in domain(60, 9).query("tier == 'simple'")["text"]]
    assert np.mean(easy) > np.mean(hard) + 0.3
    assert (router.policy.champion.manifest.name, router.policy.champion.manifest.version) == ("shop", 3)
    assert metrics["n_held_out"] == len(rows.texts)
    assert metrics["n_training"] + metrics["n_held_out"] == metrics["n_labels"] == 400
    assert router.policy.champion.manifest.training_data[-1]["source"] == "labels.jsonl"


def test_card_shows_the_figures(learnt: tuple[Path, dict[str, Any], Any]) -> None:
    folder, metrics, _ = learnt
    card = (folder / "README.md").read_text("utf-8")
    assert f"{metrics['out_of_fold']['apgr']:.3f}" in card
    assert "labels.jsonl" in card
    assert not any(text[:30] in card for text in domain()["text"])  # no prompt of the user's


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_twice_is_the_same_to_the_byte(learnt: tuple[Path, dict[str, Any], Any], tmp_path: Path) -> None:
    """With other caches, in another process, in another place."""
    path = written(tmp_path, domain())
    command = [sys.executable, "-c", AGAIN, str(path), str(tmp_path)]
    subprocess.run(command, check=True, cwd=corpora.ROOT, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert tree(tmp_path / "shop-v3") == tree(learnt[0])


AGAIN = """
import sys
from pathlib import Path
from router.classifier import artifact
from training.retrain import challenger
from training.rows.traffic import TrafficFile
out = Path(sys.argv[2])
challenger.learn(TrafficFile(Path(sys.argv[1])), artifact.find(), out / "shop-v3", out / "cache")
"""


def test_a_killed_run_leaves_nothing_half_done_and_goes_on(
    learnt: tuple[Path, dict[str, Any], Any], tmp_path: Path
) -> None:
    path = written(tmp_path, domain())
    command = [sys.executable, "-c", AGAIN, str(path), str(tmp_path)]
    running = subprocess.Popen(command, cwd=corpora.ROOT)
    fits = tmp_path / "cache" / "training" / "retrain" / "challenger" / "_fit"
    deadline = time.monotonic() + 60
    while len(list(fits.glob("*/output.pkl"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (tmp_path / "shop-v3").exists()
    kept = {file: file.stat().st_mtime_ns for file in fits.glob("*/output.pkl")}
    assert kept
    subprocess.run(command, check=True, cwd=corpora.ROOT)
    assert tree(tmp_path / "shop-v3") == tree(learnt[0])
    assert all(file.stat().st_mtime_ns == at for file, at in kept.items())  # taken, not made again


KILLED = """
import os, signal, sys
from router.cli import main
from training.{package} import {module}
real = {module}.{function}
def killed(*args, **kwargs):
    if {after}:
        real(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
{module}.{function} = killed
sys.argv = ["tierwise", *sys.argv[1:]]
main()
"""
COMMAND = "import sys; from router.cli import main; sys.argv = ['tierwise', *sys.argv[1:]]; main()"


def test_killed_at_any_step_the_champion_serves_and_the_next_run_finishes(tmp_path: Path) -> None:
    """kill -9 while the challenger is written, when the gate has just passed it, and before it is promoted."""
    models = tmp_path / "models"
    shutil.copytree(BASE, models / "old-v1")
    before = Pointer("old-v1")
    pointer.write_pointer(models, before)
    written(tmp_path, tickets(), "tickets.csv")
    options = ["retrain", "--labels", "tickets.csv", "--out", "models/shop-v3", "--cache", "cache", "--promote"]

    def run(code: str) -> int:
        known = {**os.environ, "PYTHONPATH": str(corpora.ROOT)}
        command = [sys.executable, "-c", code, *options]
        return subprocess.run(command, cwd=tmp_path, env=known, check=False).returncode

    steps = (
        ("build", "export", "parity_gap", 0),
        ("examine", "gate", "compare", 1),
        ("retrain", "promotion", "promote", 0),
    )
    for package, module, function, after in steps:
        code = KILLED.format(package=package, module=module, function=function, after=after)
        assert run(code) == -signal.SIGKILL, function
        assert pointer.read_pointer(models) == before
        assert Router.load(models).policy.champion.name == "old-v1"
        if function != "promote":  # only with the gate's word
            with pytest.raises(TierwiseError, match=r"no artifact 'shop-v3'|has not passed the gate"):
                promotion.promote(models, "shop-v3")
    assert run(COMMAND) == 0
    assert pointer.read_pointer(models) == Pointer("shop-v3", history=("old-v1",))
    assert Router.load(models).policy.champion.name == "shop-v3"
    assert {path.name for path in models.iterdir()} == {"current.json", "old-v1", "shop-v3"}


@pytest.mark.parametrize("name", ["l.jsonl", "l.csv", "l.parquet"])
def test_formats_say_the_same(name: str, tmp_path: Path) -> None:
    frame = domain(50).assign(weight=2.0, language="en", conversation=[str(n // 2) for n in range(50)])
    (batch,) = traffic.read_labels(TrafficFile(written(tmp_path, frame, name)))
    assert batch.texts == frame["text"].tolist()
    assert (batch.targets.argmax(axis=1) == np.where(frame["tier"] == "simple", 0, 2)).all()
    assert (batch.weights == 2).all()
    assert batch.slices == {"language": ["en"] * 50}
    assert batch.conversations[:3] == ["0", "0", "1"]


def test_scores_become_required_tiers(tmp_path: Path) -> None:
    texts = ["one", "two", "three", "four"]
    wide = pd.DataFrame({"text": texts, "small": [1.0, 0.0, 0.0, 0.25], "big": [1.0, 1.0, 0.0, 0.75]})
    tiers = {"small": Tier.SIMPLE, "big": Tier.COMPLEX}
    expected = [[1, 0, 0], [0, 0, 1], [1, 0, 0], [0.5, 0, 0.5]]  # what both fail does not need the strong one
    (batch,) = traffic.read_labels(TrafficFile(written(tmp_path, wide, "wide.parquet"), tiers=tiers))
    assert batch.targets.tolist() == expected
    about = wide.assign(query_id=range(4), language="en")
    long = about.melt(["query_id", "text", "language"], var_name="model", value_name="score")
    (batch,) = traffic.read_labels(TrafficFile(written(tmp_path, long, "long.parquet"), tiers=tiers))
    assert batch.targets.tolist() == expected
    assert batch.slices == {"language": ["en"] * 4}
    prompts = written(tmp_path, pd.DataFrame({"query_id": range(4), "prompt": texts}), "prompts.csv")
    source = TrafficFile(written(tmp_path, long.drop(columns="text"), "scores.csv"), prompts, tiers)
    (batch,) = traffic.read_labels(source)
    assert batch.texts == texts
    assert batch.targets.tolist() == expected


def test_what_saw_two_tiers_only_says_so_and_counts_what_simple_lacks_as_complex(tmp_path: Path) -> None:
    scores = domain()[["text"]].assign(small=(domain()["tier"] == "simple").astype(float), big=1.0)
    args = ["--labels", str(written(tmp_path, scores)), "--out", "models/two-v1", "--cache", "cache"]
    tiers = ["--tier", "simple=small", "--tier", "complex=big"]
    done = CliRunner().invoke(retrain, [*args, *tiers])
    assert "two tiers   400 labels saw the simple and the complex tier only" in done.output
    assert "moderate 0%" in done.output
    done = CliRunner().invoke(label, [args[1], *tiers, "--out", "l.jsonl"])
    assert "400 of them saw the simple and the complex tier only" in done.output
    (batch,) = traffic.read_labels(TrafficFile(Path("l.jsonl")))
    assert batch.censored.all()
    three = written(tmp_path, scores.assign(middle=1.0), "three.jsonl")
    (batch,) = traffic.read_labels(
        TrafficFile(three, tiers={"small": Tier.SIMPLE, "middle": Tier.MODERATE, "big": Tier.COMPLEX})
    )
    assert not batch.censored.any()
    (batch,) = traffic.read_labels(TrafficFile(written(tmp_path, domain(), "given.csv")))
    assert not batch.censored.any()
    wrong = domain()[["text"]].assign(p_required=[[1, 0, 0]] * 400, censored="no")
    with pytest.raises(LabelError, match=r"row 1 \(.*\): censored is 'no', expected true or false"):
        next(traffic.read_labels(TrafficFile(written(tmp_path, wrong))))


def test_models_of_a_fleet_need_no_mapping(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"text": ["a"], "claude-haiku-4-5": [0.0], "claude-sonnet-4-6": [1.0], "claude-opus-4-7": [1.0]}
    )
    (batch,) = traffic.read_labels(TrafficFile(written(tmp_path, frame)))
    assert batch.targets.tolist() == [[0, 1, 0]]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (domain().drop(columns="tier"), "no column tier, and no scores .*; it has text"),
        (domain().rename(columns={"text": "txt"}), "no column text or prompt or query; is it 'txt'.*--text-column"),
        (domain().assign(tier=["smple", *domain()["tier"][1:]]), r"row 1 \(.*\): tier 'smple'.*did you mean 'simple'"),
        (domain().assign(tier=7), r"row 1 \(.*\): tier 7 is none of .*\(399 more such rows"),
        (domain().assign(tier="simple"), "all but 0 say simple: there is nothing to tell apart"),
        (domain(10), "10 labelled texts, at least 100 are needed"),
        (domain().assign(text=["", *domain()["text"][1:]]), "row 1: there is no text; leave the row out"),
        (domain().assign(weight=[-1.0] + [1.0] * 399), r"row 1 \(.*\): weight is -1.0, expected a number above 0"),
        (domain().assign(conversation="one"), "400 of 400 texts are near-duplicates or of one conversation"),
        (domain().assign(p_required=[[0.5, 0.2, 0.2]] * 400), r"row 1 \(.*\): p_required is .*expected a sum of 1"),
        (domain().assign(p_required=["x"] * 400), r"row 1 \(.*\): p_required is 'x', expected 3 numbers"),
        (domain().assign(method="guess"), r"row 1 \(.*\): method 'guess' is none of"),
        (domain()[["text"]].assign(a=0.5, b=0.7), "scores of a, b: none of their tiers is known.*--tier"),
        (domain()[["text"]].assign(model="a", score=0.5), "no column query_id or id"),
        (
            domain()[["text"]].assign(id=range(400), model="a", score=7),
            "row 1: query 0, model a: score is 7, expected 0 to 1",
        ),
        (domain()[["text"]].assign(id=range(400), model="a", score=0.5), "scores of a: none of their tiers is known"),
    ],
)
def test_wrong_input_is_named(frame: pd.DataFrame, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, frame.reset_index(drop=True))
    with pytest.raises(LabelError, match=message):
        challenger.learn(TrafficFile(path), BASE, tmp_path / "out", tmp_path / "cache")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.xml", b"x", r"the format '.xml' is not known; expected .csv, .tsv, .*, .xlsx"),
        ("l.jsonl", b'{"text": "a"}\n{broken', r"row 2 \(.{broken.\): .*expected one JSON object a line"),
        ("l.parquet", b"PAR1 not really", "Parquet"),
        ("l.jsonl", b"", "has no rows"),
        ("l.csv", b"", "has no rows"),
    ],
)
def test_wrong_files_are_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LabelError, match=message):
        challenger.learn(TrafficFile(tmp_path / name), BASE, tmp_path / "out", tmp_path / "cache")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"no.jsonl is not there, or not a file"):
        challenger.learn(TrafficFile(tmp_path / "no.jsonl"), BASE, tmp_path / "out", tmp_path / "cache")


def ingested(folder: Path, frame: pd.DataFrame) -> examples.Examples:
    from joblib import Memory

    source = TrafficFile(written(folder, frame))
    return examples.read_examples(source, SHIPPED, "shipped", Memory(folder / "cache", verbose=0), lambda *_: None)


def test_conflicting_labels_are_averaged_and_reported_and_a_person_wins(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        [
            ("the same", "simple", "given"),
            ("The  same", "complex", "given"),
            ("judged twice", "simple", "judge"),
            ("judged twice", "complex", "by-hand"),
            ("agreed", "simple", "given"),
            ("agreed", "simple", "given"),
            ("alone", "moderate", "given"),
        ],
        columns=["text", "tier", "method"],
    )
    rows, report = examples.merged(ingested(tmp_path, frame))
    assert report["repeated_texts"] == 3
    assert report["conflicting_texts"] == 1
    assert report["examples_by_row"] == [[1, 2]]
    assert report["overruled_labels"] == 1
    counted = rows.weights > 0
    assert counted.tolist() == [True, False, False, True, True, False, True]
    assert rows.targets[counted].tolist() == [[0.5, 0, 0.5], [0, 0, 1], [1, 0, 0], [0, 1, 0]]


def test_near_duplicates_and_conversations_stay_on_one_side(tmp_path: Path) -> None:
    texts = OWN["text"].tolist()[:600]
    again = [f"{text} Please!" for text in texts if len(text.split()) > 30][:200]
    frame = pd.DataFrame({"text": [*texts, *again]})
    frame["tier"] = np.where(np.arange(len(frame)) % 2, "simple", "complex")
    frame["conversation"] = ["" if n >= 100 else f"c{n // 10}" for n in range(len(frame))]
    rows, _ = examples.merged(ingested(tmp_path, frame))
    out = examples.split(rows)
    assert 0.15 < out.mean() < 0.5
    of_conversation = out[:100].reshape(10, 10)
    assert (of_conversation.all(axis=1) | ~of_conversation.any(axis=1)).all()
    side = dict(zip(frame["text"], out, strict=True))
    assert all(side[text] == side[text.removesuffix(" Please!")] for text in again)
    assert len(np.unique(rows.groups)) > 450  # and not everything is called alike


def test_what_trained_once_is_never_held_out_later(tmp_path: Path) -> None:
    small, large = domain(300), pd.concat([domain(300), domain(2500, 5)])
    sides = []
    for number, frame in enumerate((small, large)):
        (tmp_path / str(number)).mkdir()
        rows, _ = examples.merged(ingested(tmp_path / str(number), frame))
        sides.append(examples.split(rows)[:300])
    assert not (sides[1] & ~sides[0]).mean() > 0.02  # a new near-duplicate may move a group
    assert sides[1].mean() < sides[0].mean()


def test_minhash_finds_near_duplicates_only() -> None:
    shard = regression.encode([*OWN["text"], *(f"{text} ok" for text in OWN["text"])], SHIPPED)
    groups = duplicates.groups(duplicates.Hasher(len(SHIPPED.embedding.idf)).sign(shard.ids, shard.ends), [])
    n = len(OWN)
    long = OWN["text"].str.split().str.len().to_numpy() > 20
    assert (groups[:n] == groups[n:])[long].mean() > 0.99
    assert len(np.unique(groups[:n])) > 0.97 * n


def test_fit_is_the_regression_that_scikit_learn_finds() -> None:
    """Without a prior: the same optimum, whichever way the rows are cut into shards."""
    own = OWN.sample(400, random_state=0)
    texts, required = own["text"].tolist(), own["tier"].map({t.value: k for k, t in enumerate(Tier)}).to_numpy(int)
    shard, nothing = regression.encode(texts, SHIPPED), regression.encode(["."], SHIPPED)
    rows = [shard.take(np.arange(0, 150)), shard.take(np.arange(150, 400)), nothing]
    targets = np.vstack([np.eye(3)[required], np.full((1, 3), 1 / 3)])
    weights = np.append(np.ones(400), 1e-9)
    learned = regression.fit(SHIPPED, rows, np.zeros((401, 3)), targets, weights, 3.0)
    base = regression.of_base(SHIPPED)
    own_dense, own_tokens = learned.dense - base.dense, learned.tokens - base.tokens
    x = fit.design(SHIPPED.embedding.features(texts), SHIPPED.classifier.mean, SHIPPED.classifier.scale)
    reference = LogisticRegression(C=1 / 3, max_iter=500, tol=1e-6).fit(x, required)
    z = x @ np.vstack([own_dense, own_tokens]) + learned.bias - base.bias
    assert np.abs(regression.softmax(z) - reference.predict_proba(x)).max() < 0.02


def test_encoding_is_the_classifiers_own_design() -> None:
    texts = [*OWN["text"].head(20), "", "日本語"]
    z = regression.logits(regression.of_base(SHIPPED), SHIPPED.embedding, [regression.encode(texts, SHIPPED)])
    reference = SHIPPED.classifier.p_required(SHIPPED.embedding.features(texts))
    assert np.abs(regression.softmax(z) - reference).max() < 1e-6
    shards = [regression.encode(texts[:9], SHIPPED), regression.encode(texts[9:], SHIPPED)]
    assert (
        regression.join(shards).take(np.array([10, 3])).ids.tolist()
        == regression.encode([texts[10], texts[3]], SHIPPED).ids.tolist()
    )
    assert sparse.issparse(shards[0].bag(len(SHIPPED.embedding.idf)))


def test_without_labels_of_a_kind_it_stays_with_the_base() -> None:
    shard = regression.encode(OWN["text"].head(50).tolist(), SHIPPED)
    prior = regression.logits(regression.of_base(SHIPPED), SHIPPED.embedding, [shard])
    weights = regression.fit(
        SHIPPED, [shard, shard.take(np.arange(0))], prior, regression.softmax(prior), np.ones(50), 3.0
    )
    assert np.abs(regression.logits(weights, SHIPPED.embedding, [shard]) - prior).max() < 1e-3


def test_noise_finds_flipped_labels(tmp_path: Path) -> None:
    frame = domain(600)
    flipped = np.random.default_rng(3).random(600) < 0.1
    frame["tier"] = np.where(flipped, np.where(frame["tier"] == "simple", "complex", "simple"), frame["tier"])
    path = written(tmp_path, frame)
    metrics, _ = challenger.learn(TrafficFile(path), BASE, tmp_path / "out", tmp_path / "cache")
    assert 0.05 < metrics["noise"]["share"] < 0.15
    assert flipped[np.array(metrics["noise"]["rows"]) - 1].mean() > 0.9
    assert metrics["out_of_fold"]["apgr"] > 0.65


def test_command_says_what_it_did_and_keeps_the_champion(tmp_path: Path) -> None:
    path = written(tmp_path, domain())
    args = ["--labels", str(path), "--out", "models/shop-v1", "--cache", "cache"]
    done = CliRunner().invoke(retrain, [*args, "--json", "--min-gain", "2"])
    assert done.exit_code == 1, done.output
    report = json.loads(done.stdout)
    assert report["passed"] is False
    assert "worth a change" in [check["name"] for check in report["gate"] if not check["holds"]]
    assert not Path("models/current.json").exists()
    assert Router.load("models/shop-v1")
    done = CliRunner().invoke(retrain, ["--labels", str(path), "--out", str(BASE)])
    assert done.exit_code == 2
    assert "choose another name" in done.output
