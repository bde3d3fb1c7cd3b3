"""What harnesses ask on the side: where it goes, and that no conversation remembers it."""

from __future__ import annotations

from typing import Any

import pytest

from router import Reason, Router, Tier, Usage
from router.decide.task import read_task
from router.types import Api, SideCall

TALK = "User: the build fails since the upgrade\nAssistant: I pinned the version and it passes."
SUMMARY = (
    "Your task is to create a detailed summary of the conversation so far, with every explicit request and what was "
    "done, so that development can go on without losing context."
)


def said(*texts: str) -> list[dict[str, Any]]:
    return [{"role": "user" if n % 2 == 0 else "assistant", "content": text} for n, text in enumerate(texts)]


CALLS: dict[str, tuple[dict[str, Any], SideCall]] = {
    "quota": ({"max_tokens": 1, "messages": said("quota")}, SideCall.PROBE),
    "warm-up": ({"max_tokens": 1, "messages": said("Warmup")}, SideCall.PROBE),
    "count": ({"max_tokens": 1, "messages": said("foo")}, SideCall.PROBE),
    "topic": (
        {
            "max_tokens": 512,
            "system": "Analyze if this message indicates a new conversation topic. If it does, extract a 2-3 word "
            "title. Format your response as a JSON object with the fields 'isNewTopic' and 'title'.",
            "messages": said("Prove that the scheduler cannot deadlock and fix it where it can."),
        },
        SideCall.CHORE,
    ),
    "session title": (
        {
            "system": "Summarize this coding conversation in under 50 characters.\nCapture the main task.",
            "messages": said(
                f"Please write a 5-10 word title for the following conversation:\n\n{TALK}\n\nNothing else."
            ),
        },
        SideCall.CHORE,
    ),
    "command prefix": (
        {
            "messages": said(
                "<policy_spec>\n# Bash command prefix detection\n- git commit -m x => git commit\n</policy_spec>\n\n"
                "Your task is to determine the command prefix for the following command.\n\nONLY return the prefix.\n\n"
                "Command: git status"
            )
        },
        SideCall.CHORE,
    ),
    "thread title": (
        {
            "system": "You are a title generator. You output ONLY a thread title. Nothing else.",
            "messages": [
                {"role": "user", "content": "Generate a title for this conversation:\n"},
                {"role": "user", "content": "the build fails since the upgrade"},
            ],
        },
        SideCall.CHORE,
    ),
    "front end's title": (
        {
            "messages": said(
                "### Task:\nGenerate a concise, 3-5 word title with an emoji summarizing the chat history.\n"
                '### Output:\nJSON format: { "title": "..." }\n'
                f"### Chat History:\n<chat_history>\n{TALK}\n</chat_history>"
            )
        },
        SideCall.CHORE,
    ),
    "commit message": (
        {
            "system": "You generate concise, one-line Git commit messages based on the provided diffs.",
            "messages": said("diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n"),
        },
        SideCall.CHORE,
    ),
    "compaction": (
        {
            "system": "You are a helpful AI assistant tasked with summarizing conversations.",
            "messages": said("Prove that the scheduler cannot deadlock.", "It cannot, because ...", SUMMARY),
        },
        SideCall.COMPACTION,
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_side_call_goes_to_the_cheapest_tier_that_can_do_it(name: str, shipped: Router) -> None:
    body, kind = CALLS[name]
    assert read_task(body).side_call is kind
    decision = shipped.decide({"model": "auto", **body})
    assert decision.reason is Reason.SIDE_CALL
    assert decision.tier is (Tier.MODERATE if kind is SideCall.COMPACTION else Tier.SIMPLE)


@pytest.mark.parametrize(
    "ask",
    [
        "Suggest ten titles for my novel about a lighthouse keeper and argue for the best.",
        "Summarize the attached contract clause by clause and flag what is unlawful.",
        "Write a commit message for this and explain whether it should be two commits.",
        "Write a title for my talk on tidal power.",
        "Design a service that generates short titles for chat conversations, with tests and a threat model.",
    ],
)
def test_what_a_user_asks_is_no_side_call(ask: str) -> None:
    assert read_task({"messages": said(ask)}).side_call is None


def plan(router: Router, body: dict[str, Any], **options: Any) -> Any:
    return router.plan({"model": "auto", "max_tokens": 400, "router": options, **body}, Api.MESSAGES)


HARD = (
    "Prove that our consensus protocol is live under partial synchrony, and find the weakest assumption that suffices."
)
EASY = "What is 2 + 2?"
USAGE = Usage(fresh_tokens=3000, output_tokens=50)
SYSTEM = "You are a coding agent. " * 400


@pytest.mark.parametrize(("ask", "tier"), [(HARD, Tier.COMPLEX), (EASY, Tier.SIMPLE)])
@pytest.mark.parametrize("system", [SYSTEM, "You are a helpful AI assistant tasked with summarizing conversations."])
@pytest.mark.parametrize("options", [{}, {"conversation_id": "c-1"}], ids=["by its words", "by its id"])
def test_compaction_stays_with_the_conversations_model(
    ask: str, tier: Tier, system: str, options: dict[str, Any], router: Router
) -> None:
    begun = plan(router, {"system": SYSTEM, "messages": said(ask)}, **options)
    assert begun.decision.tier is tier
    router.record(begun, USAGE)
    compaction = plan(router, {"system": system, "messages": said(ask, "Done.", SUMMARY)}, **options)
    assert compaction.decision.model == begun.decision.model
    assert compaction.decision.reason is Reason.SIDE_CALL


def test_no_conversation_remembers_what_was_asked_on_the_side(router: Router) -> None:
    begun = plan(router, {"system": SYSTEM, "messages": said(HARD)}, conversation_id="c-1")
    router.record(begun, USAGE)
    for body, _ in CALLS.values():
        router.record(plan(router, body, conversation_id="c-1"), USAGE)
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "run", "input": {}}]}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "ok"}]}
    later = plan(router, {"system": SYSTEM, "messages": [*said(HARD), call, result]}, conversation_id="c-1")
    assert later.decision.reason is Reason.HELD
    assert later.decision.model == begun.decision.model
