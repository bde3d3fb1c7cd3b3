"""Labelling through the real SDKs against the embedded upstream, over sockets."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import msgspec
import numpy as np
import openai
import pandas as pd
import pytest
from click.testing import CliRunner

from router import Tier, catalog
from router.catalog import PROVIDERS
from router.classifier import artifact
from router.offline import Upstream
from tests.conftest import ROOT
from training.build import corpora, export
from training.commands.label import label
from training.labelling import paid_calls, sources
from training.labelling.comparison import Judge, p_required, shortfall, tier_said
from training.labelling.paid_calls import Caller, Journal, Request
from training.labelling.sources import Book, Query
from training.rows import traffic
from training.rows.errors import LabelError
from training.rows.traffic import TrafficFile

OWN = corpora.queries()
HARD = set(OWN.loc[OWN["tier"] == "complex", "text"])
FLEETS = catalog.shipped().fleets


def speak(body: dict[str, Any], model_id: str) -> str:
    """Models as they might be: the cheap one fails hard texts, the judge sees it, whichever way round."""
    prompt = body["messages"][0]["content"]
    text = prompt if isinstance(prompt, str) else prompt[0]["text"]
    if "<answer_a>" in text:
        a, b = (text.split(f"<answer_{side}>\n")[1].startswith("wrong") for side in "ab")
        return "Both were read.\n" + ("SAME" if a == b else "B" if a else "A")
    if "Which kind of assistant" in text:
        return "Complex." if any(hard in text for hard in HARD) else "simple"
    cheap = model_id in [FLEETS[name].models[Tier.SIMPLE].id for name in ("claude", "gpt", "gemini")]
    return "wrong" if cheap and text in HARD else f"right, says {model_id}"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(reply=speak) as running:
        yield running


@pytest.fixture(params=["claude", "gpt"])
def fleet(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def client(upstream: Upstream, fleet: str) -> Any:
    if fleet.startswith("claude"):
        return anthropic.Anthropic(base_url=upstream.url, api_key="offline", max_retries=0)
    return openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="offline", max_retries=0)


def queries(n: int = 6) -> list[Query]:
    both = [OWN[OWN["tier"] == tier]["text"].head(n // 2).tolist() for tier in ("simple", "complex")]
    return [Query(text, 1.0, {"id": number}) for number, text in enumerate([*both[0], *both[1]])]


@pytest.mark.parametrize("is_batch", [False, True], ids=["direct", "batch"])
def test_judge_compares_blind_in_both_orders(upstream: Upstream, fleet: str, is_batch: bool, tmp_path: Path) -> None:
    asked = queries()
    with Journal(tmp_path / "j.db") as journal:
        caller = Caller(client(upstream, fleet), journal, is_batch=is_batch, poll_s=0)
        labels = sources.judge_labels(asked, Judge.of(FLEETS[fleet]), caller)
        assert [row.tier for row in labels] == [Tier.SIMPLE] * 3 + [Tier.COMPLEX] * 3
        assert {row.method for row in labels} == {"judge"}
        assert [row.censored for row in labels] == [False] * 3 + [True] * 3  # nothing is known of the tier between
        assert FLEETS[fleet].top.id in labels[0].by
        assert len(upstream.bills) == 4 * len(asked)
        assert all(bill.is_batch == is_batch for bill in upstream.bills)
        assert journal.spent_usd == pytest.approx(sum(bill.usd for bill in upstream.bills))
        assert sources.most_usd(asked, "judge", Judge.of(FLEETS[fleet]), is_batch) > journal.spent_usd
        again = sources.judge_labels(asked, Judge.of(FLEETS[fleet]), caller)
        assert [row.p_required for row in again] == [row.p_required for row in labels]
        assert len(upstream.bills) == 4 * len(asked)  # nothing is paid for twice


def test_gemini_labels_call_by_call(upstream: Upstream, traffic_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through its OpenAI-compatible address; it has no batches there, which is said before anything is sent."""
    there = msgspec.structs.replace(PROVIDERS["gemini"], url=f"{upstream.url}/v1")
    monkeypatch.setitem(PROVIDERS, "gemini", there)
    args = [str(traffic_file), "--by", "judge", "--n", "6", "--fleet", "gemini", "--out", "l.jsonl", "--yes"]
    with pytest.raises(paid_calls.CallsFailed, match="set GEMINI_API_KEY"):
        CliRunner().invoke(label, args, catch_exceptions=False)
    monkeypatch.setenv("GEMINI_API_KEY", "offline")
    with pytest.raises(paid_calls.CallsFailed, match="leave --batch out"):
        CliRunner().invoke(label, [*args, "--batch"], catch_exceptions=False)
    assert not upstream.requests
    done = CliRunner().invoke(label, args, catch_exceptions=False)
    assert "6 labels in l.jsonl" in done.output
    assert len(upstream.bills) == 24
    assert {body["reasoning_effort"] for body in upstream.requests} == {"minimal", "low"}
    assert min(body["max_completion_tokens"] for body in upstream.requests) > paid_calls.THINKING_TOKENS


def test_a_fleet_of_several_providers_is_refused() -> None:
    mixed = catalog.Fleet("mixed", {Tier.SIMPLE: FLEETS["gpt"].models[Tier.SIMPLE], Tier.COMPLEX: FLEETS["claude"].top})
    with pytest.raises(paid_calls.CallsFailed, match="'mixed' is of openai, anthropic, labels come from one of"):
        paid_calls.client_for(mixed)


@pytest.mark.parametrize("name", ["claude", "claude-latest", "gpt", "gpt-latest", "gemini"])
def test_every_fleets_models_take_what_they_are_asked(upstream: Upstream, name: str, tmp_path: Path) -> None:
    """Also those that cannot answer without thinking."""
    with Journal(tmp_path / "j.db") as journal, client(upstream, name) as sdk:
        asked = queries(2)
        judge = Judge.of(FLEETS[name])
        labels = sources.judge_labels(asked, judge, Caller(sdk, journal))
        assert len(labels) == 2
        assert sources.most_usd(asked, "judge", judge, False) > journal.spent_usd


def test_no_prompt_names_a_model_or_a_tier(upstream: Upstream, tmp_path: Path) -> None:
    with Journal(tmp_path / "j.db") as journal:
        sources.judge_labels(queries(2), Judge.of(FLEETS["claude"]), Caller(client(upstream, "claude"), journal))
    prompts = [json.dumps(body["messages"]) for body in upstream.requests]
    comparisons = [p for p in prompts if "<answer_a>" in p]
    assert len(comparisons) == 4
    told = [
        word
        for p in comparisons
        for word in ("cheap", "top", "tier", "haiku", "opus")
        if word in p.split("answer_a")[0]
    ]
    assert not told


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("B is right.\nB", "A", 1),
        ("SAME", "SAME", 0),
        ("A", "B", 0),
        ("B", "B", 0.5),  # the order decided
        ("Either would do", "SAME", None),
        (None, "SAME", None),
    ],
)
def test_verdicts(first: str | None, second: str | None, expected: float | None) -> None:
    assert shortfall(first, second) == expected


@pytest.mark.parametrize(
    ("cheap", "middle", "expected"),
    [
        (0, None, (1, 0, 0)),
        (1, None, (0, 0, 1)),
        (0.5, None, (0.5, 0, 0.5)),
        (1, 0, (0, 1, 0)),
        (1, 0.5, (0, 0.5, 0.5)),
        (0.5, 1, (0.5, 0, 0.5)),  # a middle tier is never below the cheap one
    ],
)
def test_what_falls_behind_is_required_above(
    cheap: float, middle: float | None, expected: tuple[float, float, float]
) -> None:
    assert p_required(cheap, middle) == expected


def test_the_moderate_tier_is_asked_where_the_cheap_one_loses(upstream: Upstream, fleet: str, tmp_path: Path) -> None:
    asked = queries(8)  # half of them hard; the moderate model of this upstream answers all of them well
    judge = Judge.of(FLEETS[fleet], with_middle=True)
    with Journal(tmp_path / "j.db") as journal, client(upstream, fleet) as sdk:
        labels = sources.judge_labels(asked, judge, Caller(sdk, journal))
        assert [row.tier for row in labels] == [Tier.SIMPLE] * 4 + [Tier.MODERATE] * 4
        assert not any(row.censored for row in labels)
        assert len(upstream.bills) == 4 * 8 + 3 * 4
        assert sources.most_usd(asked, "judge", judge, False) > journal.spent_usd
    assert FLEETS[fleet].models[Tier.MODERATE].id in labels[0].by


def test_asking_for_the_tier(upstream: Upstream, tmp_path: Path) -> None:
    with Journal(tmp_path / "j.db") as journal:
        caller = Caller(client(upstream, "claude"), journal)
        labels = sources.asked_labels(queries(), FLEETS["claude"].models[Tier.SIMPLE], caller)
    assert [row.tier for row in labels] == [Tier.SIMPLE] * 3 + [Tier.COMPLEX] * 3
    assert tier_said("I cannot tell") is None


@pytest.fixture
def requests() -> list[Request]:
    return [Request(FLEETS["claude"].models[Tier.SIMPLE], query.text, 50) for query in queries(20)]


def test_budget_stops_before_it_is_passed(upstream: Upstream, requests: list[Request], tmp_path: Path) -> None:
    budget = sum((r.most_usd(False) for r in requests[:10]), Decimal(0))
    with Journal(tmp_path / "j.db") as journal:
        tight = Caller(client(upstream, "claude"), journal, budget_usd=budget / 4)
        with pytest.raises(paid_calls.OverBudget, match="raise --budget-usd"):
            tight.answer(requests)
        assert 0 < journal.spent_usd <= budget / 4
        paid = len(upstream.bills)
        assert len(tight.missing(requests)) == len(requests) - paid
        Caller(client(upstream, "claude"), journal).answer(requests)
        assert len(upstream.bills) == len(requests)


def test_ctrl_c_keeps_every_reply_that_was_paid_for(
    upstream: Upstream, requests: list[Request], tmp_path: Path
) -> None:
    seen = 0

    def interrupted(_: int) -> None:
        nonlocal seen
        seen += 1
        if seen == 5:
            raise KeyboardInterrupt

    with Journal(tmp_path / "j.db") as journal:
        caller = Caller(client(upstream, "claude"), journal, progress=interrupted)
        with pytest.raises(KeyboardInterrupt):
            caller.answer(requests)
        paid = len(upstream.bills)
        assert paid < len(requests)
        assert len(requests) - len(caller.missing(requests)) == paid


def test_a_batch_that_nobody_waited_for_is_taken_up(
    upstream: Upstream, fleet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the batch was made: with its id noted, or even before that."""
    model = FLEETS[fleet].models[Tier.SIMPLE]
    for number, lost in enumerate(("_finish_batches", "name_batch")):
        asked = [Request(model, f"{query.text} {lost}", 50) for query in queries(6)]

        def killed(*_: Any) -> None:
            raise KeyboardInterrupt

        with Journal(tmp_path / f"{number}.db") as journal, monkeypatch.context() as patch:
            caller = Caller(client(upstream, fleet), journal, is_batch=True, poll_s=0)
            if lost == "name_batch":
                patch.setattr(Journal, "name_batch", killed)
            else:
                patch.setattr(paid_calls, "_has_ended", killed)
            with pytest.raises(KeyboardInterrupt):
                caller.answer(asked)
        n_batches = len(upstream.batches)
        with Journal(tmp_path / f"{number}.db") as journal:
            caller = Caller(client(upstream, fleet), journal, is_batch=True, poll_s=0)
            assert None not in caller.answer(asked)
            assert not journal.batches()
        assert len(upstream.batches) == n_batches


def test_rows_that_fail_in_a_batch_are_left_out(upstream: Upstream, requests: list[Request], tmp_path: Path) -> None:
    upstream.batch_errors = {requests[0].key}
    with Journal(tmp_path / "j.db") as journal:
        caller = Caller(client(upstream, "claude"), journal, is_batch=True, poll_s=0)
        replies = caller.answer(requests)
    assert replies[0] is None
    assert None not in replies[1:]


def test_a_provider_that_refuses_everything_is_quoted(tmp_path: Path, upstream: Upstream) -> None:
    wrong = anthropic.Anthropic(base_url=upstream.url, api_key="invalid", max_retries=0)
    model = FLEETS["claude"].models[Tier.SIMPLE]
    with Journal(tmp_path / "j.db") as journal, pytest.raises(paid_calls.CallsFailed, match="invalid x-api-key"):
        Caller(wrong, journal).answer([Request(model, "hi", 5)])


def test_texts_are_chosen_where_the_base_is_unsure_and_weights_give_the_mix_back(tmp_path: Path) -> None:
    base = export.read_unfolded(artifact.find())
    path = tmp_path / "traffic.jsonl"
    rows = [{"text": text, "category": category} for text, category in zip(OWN["text"], OWN["category"], strict=True)]
    path.write_text("\n".join(json.dumps(row) for row in [*rows, *rows[:300]]))
    chosen = sources.draw_queries(TrafficFile(path), 300, base)
    assert abs(len(chosen) - 300) <= 1
    assert len({query.text for query in chosen}) == len(chosen)
    assert [q.text for q in chosen] == [q.text for q in sources.draw_queries(TrafficFile(path), 300, base)]

    def doubt(texts: list[str]) -> np.ndarray:
        q, _ = base.predict(texts)
        p = np.diff(q, axis=1, prepend=0).clip(1e-9, 1)
        return -(p * np.log(p)).sum(axis=1)

    of_all, of_chosen = doubt(OWN["text"].tolist()), doubt([q.text for q in chosen])
    weights = np.array([q.weight for q in chosen])
    assert of_chosen.mean() > of_all.mean() + 0.02
    assert abs(np.average(of_chosen, weights=weights) - of_all.mean()) < abs(of_chosen.mean() - of_all.mean())
    assert len({q.row["category"] for q in chosen}) > 0.8 * OWN["category"].nunique()


def test_by_hand_one_key_a_query_with_undo_and_resume(tmp_path: Path) -> None:
    def label_with(book: Book, asked: list[Query], keys: str) -> None:
        pressed = iter(keys)
        sources.by_hand(asked, book, "me", lambda: next(pressed), lambda *_: None)

    asked = queries()
    with Book(tmp_path / "l.jsonl") as book:
        label_with(book, asked, "sxcuum mq")  # x is no key; both undone; moderate, skip, moderate, stop
        assert [row.tier for row in book.labels] == [Tier.MODERATE, Tier.MODERATE]
        assert book.labels[1].text == asked[2].text
    with Book(tmp_path / "l.jsonl") as book:
        left = [query for query in asked if query.text not in book.labelled("by-hand")]
        assert len(left) == 4
        label_with(book, left, "ssss")
    assert len((tmp_path / "l.jsonl").read_text().splitlines()) == 6


def test_a_line_that_a_crash_cut_off_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    with Book(path) as book:
        book.add([query.label((1, 0, 0), "by-hand", "me") for query in queries(4)])
    path.write_bytes(path.read_bytes()[:-20])
    with Book(path) as book:
        assert len(book.labels) == 3
        book.add([queries(4)[3].label((1, 0, 0), "by-hand", "me")])
    assert len(next(traffic.read_labels(TrafficFile(path))).texts) == 4
    path.write_text('{"other": 1}\n')
    with pytest.raises(LabelError, match="line 1 is not a label"):
        Book(path)


def test_feedback_says_on_which_side_the_required_tier_is(tmp_path: Path) -> None:
    base = export.read_unfolded(artifact.find())
    path = tmp_path / "feedback.jsonl"
    served = [("claude-haiku-4-5", True), ("claude-haiku-4-5", False), ("claude-sonnet-4-6", True), ("other", True)]
    rows = [{"text": OWN["text"][n], "model": m, "good": good} for n, (m, good) in enumerate(served)]
    path.write_text("\n".join(map(json.dumps, [*rows, {"text": "x", "model": "claude-opus-4-7", "good": False}])))
    with pytest.raises(LabelError, match="is feedback, not labels"):
        next(traffic.read_labels(TrafficFile(path)))
    (labels,) = sources.from_feedback(TrafficFile(path), base)
    assert [row.p_required[0] for row in labels[:2]] == [1, 0]
    assert labels[2].p_required[2] == 0
    assert 0 < labels[2].p_required[1] < 1
    assert len(labels) == 3  # an unknown model says nothing, nor does the strongest tier
    done = CliRunner().invoke(label, [str(path), "--out", "l.jsonl"])
    assert "3 labels in l.jsonl" in done.output
    path.write_text('{"text": "x", "model": "claude-opus-4-7", "good": "yes"}')
    with pytest.raises(LabelError, match=r"row 1 \(.x.\): good is 'yes', expected true or false"):
        next(sources.from_feedback(TrafficFile(path), base))


def test_agreement_between_methods() -> None:
    asked = [Query(text, 1.0, {}) for text in OWN["text"].head(20)]
    sure = [query.label((n % 2, 0, 1 - n % 2), "by-hand", "me") for n, query in enumerate(asked)]
    judged = [query.label((n % 2, 0, 1 - n % 2), "judge", "m") for n, query in enumerate(asked)]
    asked_too = [query.label((1, 0, 0), "ask", "m") for query in asked]
    rows = {tuple(row["methods"]): row for row in sources.agreement([*sure, *judged, *asked_too])}
    assert rows["by-hand", "judge"] == {"methods": ["by-hand", "judge"], "n": 20, "agree": 1.0, "kappa": 1.0}
    assert rows["by-hand", "ask"]["kappa"] == 0


@pytest.fixture
def traffic_file(tmp_path: Path) -> Path:
    path = tmp_path / "traffic.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in OWN["text"].head(60)))
    return path


def test_command_asks_before_a_cent_is_spent(
    upstream: Upstream, traffic_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", upstream.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "offline")
    args = [str(traffic_file), "--by", "judge", "--n", "10", "--out", "l.jsonl"]
    done = CliRunner().invoke(label, args, input="n\n")
    assert done.exit_code == 1
    assert "at most $" in done.output
    assert not upstream.bills
    done = CliRunner().invoke(label, [*args, "--yes"])
    assert done.exit_code == 0, done.output
    assert "10 labels in l.jsonl" in done.output
    n_bills = len(upstream.bills)
    done = CliRunner().invoke(label, [*args, "--yes"])
    assert "10 labelled already" in done.output
    assert len(upstream.bills) == n_bills
    done = CliRunner().invoke(label, [str(traffic_file), "--by", "ask", "--n", "10", "--out", "l.jsonl", "--yes"])
    assert "judge and ask agree on 100% of 10 texts" in done.output


BY_HAND = ["label", "traffic.jsonl", "--by-hand", "--n", "3", "--out", "l.jsonl"]
RUN = [sys.executable, "-c", "from router.cli import main; main()", *BY_HAND]


def test_command_by_hand(traffic_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal, where somebody presses s again and again."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    terminal, keys = pty.openpty()
    running = subprocess.Popen(RUN, cwd=traffic_file.parent, stdin=keys, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while running.poll() is None and time.monotonic() < deadline:
        os.write(terminal, b"s")
        time.sleep(0.1)
    running.kill()
    said, _ = running.communicate()
    os.close(terminal)
    os.close(keys)
    assert running.returncode == 0
    assert "--- 3 of 3 ---" in said
    assert "3 labels in l.jsonl" in said
    labels = [json.loads(line) for line in (traffic_file.parent / "l.jsonl").read_text().splitlines()]
    assert [row["p_required"] for row in labels] == [[1, 0, 0]] * 3


def test_by_hand_without_a_terminal_says_so_in_a_line(traffic_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    nobody: Any = {"stdin": subprocess.DEVNULL, "start_new_session": True, "capture_output": True, "text": True}
    done = subprocess.run(RUN, cwd=traffic_file.parent, check=False, timeout=120, **nobody)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: --by hand reads keys, and there is no terminal; ")
    assert done.stderr.count("\n") == 1
    assert "--by judge" in done.stderr
    assert not (traffic_file.parent / "l.jsonl").exists()


@pytest.mark.parametrize("by", ["judge", "ask"])
def test_labels_that_do_not_come_say_why(by: str, traffic_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def vague(body: dict[str, Any], model_id: str) -> str:
        text = speak(body, model_id)
        return "Hard to say, isn't it?" if "Which kind" in str(body) or "<answer_a>" in str(body) else text

    monkeypatch.setenv("ANTHROPIC_API_KEY", "offline")
    args = [str(traffic_file), "--by", by, "--n", "6", "--out", "l.jsonl", "--yes"]
    with Upstream(reply=vague) as running:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", running.url)
        with pytest.raises(LabelError) as raised:
            CliRunner().invoke(label, args, catch_exceptions=False)
    lacks = "without A, B or SAME" if by == "judge" else "that names no tier"
    model = FLEETS["claude"].top if by == "judge" else FLEETS["claude"].models[Tier.SIMPLE]
    why = f'6 of 6 texts got no label: 6 for a reply of {model.id} {lacks}, such as "Hard to say, isn\'t it?"'
    assert str(raised.value).startswith(why)


def test_some_labels_that_do_not_come_are_counted(traffic_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = set(OWN["text"].head(60).iloc[::3])

    def partly(body: dict[str, Any], model_id: str) -> str:
        return "" if body["messages"][0]["content"] in silent else speak(body, model_id)

    monkeypatch.setenv("ANTHROPIC_API_KEY", "offline")
    args = [str(traffic_file), "--by", "judge", "--n", "30", "--out", "l.jsonl", "--yes"]
    with Upstream(reply=partly) as running:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", running.url)
        done = CliRunner().invoke(label, args, catch_exceptions=False)
    assert done.exit_code == 0
    n = int(done.stderr.split(" of 30 texts got no label")[0].splitlines()[-1])
    assert 0 < n < 30
    assert f"{n} for an empty reply of {FLEETS['claude'].models[Tier.SIMPLE].id}" in done.stderr
    assert f"{30 - n} labels in l.jsonl" in done.stdout


@pytest.mark.parametrize("is_batch", [False, True], ids=["direct", "batch"])
@pytest.mark.parametrize("script", ["日本語で長く答える。", "word ", "🙂", "0 1 2 "])
def test_the_most_that_was_stated_is_enough(script: str, is_batch: bool, fleet: str, tmp_path: Path) -> None:
    """Whatever the script, and however long the answers: the stated sum bounds every call that is made."""
    asked = [Query(f"{n} {script * 40}", 1.0, {}) for n in range(3)]
    judge = Judge.of(FLEETS[fleet], with_middle=True)
    most = sources.most_usd(asked, "judge", judge, is_batch)
    answer = (script * 1000).encode()[:4000].decode("utf-8", "ignore")  # some 1,000 tokens, as many as are asked for

    def long(body: dict[str, Any], model_id: str) -> str:
        if "<answer_a>" in str(body):
            return "B" if "wrong" in str(body).split("answer_a")[1] else "A"
        return ("wrong " if "haiku" in model_id or "mini" in model_id else "") + answer

    with Upstream(reply=long) as running, Journal(tmp_path / "j.db") as journal:
        caller = Caller(client(running, fleet), journal, is_batch=is_batch, poll_s=0, budget_usd=most)
        labels = sources.judge_labels(asked, judge, caller)
        assert len(labels) == 3
        assert journal.spent_usd <= most
        assert sum(bill.usd for bill in running.bills) <= most


def test_without_a_key_it_says_which(traffic_file: Path) -> None:
    args = [str(traffic_file), "--by", "ask", "--n", "3", "--out", "l.jsonl", "--yes"]
    with pytest.raises(paid_calls.CallsFailed, match="set ANTHROPIC_API_KEY"):
        CliRunner().invoke(label, args, catch_exceptions=False)


def test_a_model_without_prices_is_refused_before_it_is_asked() -> None:
    unpriced = msgspec.structs.replace(FLEETS["claude"].top, prices=(catalog.Price(),))
    with pytest.raises(paid_calls.CallsFailed, match=r"no price of claude-.* is known"):
        Request(unpriced, "hi", 5).most_usd(False)


def test_a_tier_is_read_whatever_its_case_and_the_blanks_around_it(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("text,tier\nhi, simple \nprove it,COMPLEX\nsum it up,Moderate\n")
    (batch,) = traffic.read_labels(TrafficFile(path))
    assert batch.targets.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_labels_that_came_with_a_table_keep_its_classes(tmp_path: Path) -> None:
    out = tmp_path / "l.jsonl"
    CliRunner().invoke(label, [str(ROOT / "examples/labels.csv"), "--out", str(out)], catch_exceptions=False)
    found = Counter((row["class"], row["method"]) for row in map(json.loads, out.read_text("utf-8").splitlines()))
    given = pd.read_csv(ROOT / "examples/labels.csv")["class"].value_counts()
    assert found == {(name, "outcomes"): n for name, n in given.items()}
