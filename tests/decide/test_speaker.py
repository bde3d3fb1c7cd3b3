"""Whose words these are: one case for each kind of wrapper, result and word of the user inside them."""

from __future__ import annotations

from typing import Any

import pytest

from router.decide.task import read_task
from router.types import TurnState

ASK = "Why does the invoice total round twice for Norwegian VAT, and can you prove that the fix keeps old ones alone?"
CODE = "\n".join(f"{n} | export function step{n}(input: Order): Order {{ return input }}" for n in range(1, 60))
ENVIRONMENT = "<environment_details>\n# Open Tabs\nsrc/invoice.ts\n\n# Current Mode\nACT MODE\n</environment_details>"
RULES = (
    "# *SEARCH/REPLACE block* Rules:\n\nWrite each edit as one block: the path of the file, a fence, the old lines, a "
    "divider, the new lines, a fence.\n\nBlocks are short, and hold all code that you return."
)


def user(*texts: Any) -> dict[str, Any]:
    parts = [{"type": "text", "text": text} if isinstance(text, str) else text for text in texts]
    return {"role": "user", "content": texts[0] if len(texts) == 1 and isinstance(texts[0], str) else parts}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def result(text: str) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "t1", "content": text}


CALL = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "run", "input": {}}]}

WRAPPED = {
    "lower case": f"<workspace_state>\nstep41\n</workspace_state>\n<user_query>\n{ASK}\n</user_query>",
    "upper case": f"<WORKSPACE_STATE>\nstep41\n</WORKSPACE_STATE>\n<USER_REQUEST>\n{ASK}\n</USER_REQUEST>",
    "camel case": f"<editorContext>\nstep41\n</editorContext>\n<userRequest>\n{ASK}\n</userRequest>",
    "pascal case": f"<ProjectRules>\nstep41\n</ProjectRules>\n<HumanMessage>\n{ASK}\n</HumanMessage>",
    "kebab case": f"<ide-snapshot>\nstep41\n</ide-snapshot>\n<the-ask>\n{ASK}\n</the-ask>",
    "another language": f"<kontext>\nstep41\n</kontext>\n<nutzeranfrage>\n{ASK}\n</nutzeranfrage>",
    "a sentence as name": f"<workspace>\nstep41\n</workspace>\n<what_the_user_wants>\n{ASK}\n</what_the_user_wants>",
    "a person as name": f"<context>\nstep41\n</context>\n<user>\n{ASK}\n</user>",
    "character data": f"<CTX_DATA>\nstep41\n</CTX_DATA>\n<USER-INPUT><![CDATA[{ASK}]]></USER-INPUT>",
    "attributes": f'<doc id="3">\nstep41\n</doc>\n<query lang="en">\n{ASK}\n</query>',
    "context alone": f"<current_open_buffer>\nstep41\n</current_open_buffer>\n\n{ASK}",
    "context behind": f"{ASK}\n<info-msg>\nstep41\n</info-msg>",
    "a fence in context": f"<attachments>\n<attachment>\n```\nstep41\n```\n</attachment>\n</attachments>\n{ASK}",
    "headings": f"# Context from my IDE setup:\n\n## Open tabs:\n- step41\n\n## My request for Codex:\n{ASK}\n",
    "headings of another kind": f"## Editor state\nfile: step41\n\n## What I want\n{ASK}",
    "bold lines": f"**Context**\nstep41\n\n**User request**\n{ASK}",
    "brackets": f"[CONTEXT]\nstep41\n[/CONTEXT]\n[QUESTION]\n{ASK}\n[/QUESTION]",
    "ruled lines": f"=== RETRIEVED DOCUMENTS ===\nstep41\n=== USER QUESTION ===\n{ASK}",
    "begin and end": f"--- BEGIN FILE ---\nstep41\n--- END FILE ---\n--- BEGIN REQUEST ---\n{ASK}\n--- END REQUEST ---",
    "underlined": f"TOOLS\n------\n> step41: looks up\n\nUSER'S INPUT\n--------------------\n{ASK}",
    "labels": f"Context:\nstep41\n\nUser question: {ASK}",
    "a template": f"Use the context to answer.\n\nContext:\nstep41\n\nQuestion: {ASK}\nHelpful Answer:",
    "a retrieval template": (
        f"Context information is below.\n---------------------\nstep41\n---------------------\nGiven the context "
        f"information and not prior knowledge, answer the query.\nQuery: {ASK}\nAnswer: "
    ),
    "snippets in front": f"Here are some relevant snippets from the code base:\n```\nstep41\n```\n\n{ASK}",
    "documents behind": f"{ASK}\n\nRelevant documents:\n1. step41\n2. another",
    "editing rules behind": f"{ASK}\n\n{RULES.replace('Blocks are', 'step41 blocks are')}",
    "a ReAct prompt": f"Use this format:\n\nQuestion: step41\nThought: think\nAction: a\n\nQuestion: {ASK}\nThought:",
    "a crew's task": f"\nCurrent Task: {ASK}\n\nThis is the expected criteria for your answer: step41\n\nThought:",
}


@pytest.mark.parametrize("name", WRAPPED)
def test_the_ask_is_found_in_whatever_is_around_it(name: str) -> None:
    task = read_task({"messages": [user(WRAPPED[name])]})
    assert ASK in task.text
    assert "step41" not in task.text
    assert task.turn is TurnState.USER_TURN


RESULTS = {
    "bracketed": "[read_file for 'src/invoice.ts'] Result:\nstep41",
    "bracketed output": "[grep] Output:\nstep41",
    "named": "Tool grep returned:\nstep41",
    "named with a colon": "EXECUTION RESULT of [execute_bash]:\nstep41",
    "of a command": "Output of `grep`:\n```\nstep41\n```",
    "under a heading": "### Tool Output (grep)\nstep41",
    "in bold": "**Tool result**\nstep41",
    "an observation": "Observation: step41",
    "an executor's": "exitcode: 0 (execution succeeded)\nCode output: step41",
    "tags": "<tool_response>\nstep41\n</tool_response>",
    "a return code": "<returncode>0</returncode>\n<output>\nstep41\n</output>",
    "no tool used": "[ERROR] Your last answer used no tool. step41\n\n# Reminder: call tools in XML. (Automated.)",
    "not parsed": "Error: your output could not be parsed as JSON, step41. Return only the action block.",
    "not matched": "# 1 SEARCH/REPLACE block failed to match!\n\nstep41",
    "go on": "Continue working on the task. If finished, call `done`. step41. This is an automated message.",
    "lint": "# Fix any errors below, if possible.\n\n## Running: flake8 step41",
    "a notification": "<task-notification>\n<status>step41</status>\n</task-notification>",
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_as_text_is_no_new_turn(name: str) -> None:
    task = read_task({"messages": [user(ASK), assistant("I will look."), user(RESULTS[name])]})
    assert task.text == ASK
    assert task.turn is TurnState.TOOL_LOOP


@pytest.mark.parametrize(
    "call",
    [
        "<read_file>\n<path>a</path>\n</read_file>",
        '<tool_call>\n{"name": "grep"}\n</tool_call>',
        "Thought: look\nAction: grep\nAction Input: x",
        '```json\n{"tool": "grep"}\n```',
    ],
)
def test_what_follows_a_call_in_text_is_its_result(call: str) -> None:
    task = read_task({"messages": [user(ASK), assistant(call), user("src/a.ts:3: step41")]})
    assert task.text == ASK
    assert task.turn is TurnState.TOOL_LOOP


REMINDER = "<system-reminder>\n{}\n</system-reminder>"
QUEUED = f"The user sent a new message while you were working:\n{ASK}"
DENIED = f"The user denied this operation and provided the following feedback:\n<feedback>\n{ASK}\n</feedback>"
RESUMED = "[TASK RESUMPTION] This task was interrupted.\n\nNew instructions from the user:\n"
SAID = {
    "a queued message": [
        result("ok"),
        REMINDER.format(f"{QUEUED}\n\nSee to it when the current task is done."),
    ],
    "a queued message in the result": [result("ok\n\n" + REMINDER.format(QUEUED))],
    "an interjection": [result("ok"), REMINDER.format(f"User interjection:\n{ASK}")],
    "a refusal": [result(f"The tool use was rejected. To tell you how to proceed, the user said:\n{ASK}")],
    "a reason": [result(f"[Tool call rejected by user]\nReason given by the user: {ASK}")],
    "feedback": ["[write_to_file for 'a'] Result:", DENIED, ENVIRONMENT],
    "an answer": ["[ask_followup_question for 'x'] Result:", f"<answer>\n{ASK}\n</answer>"],
    "after a break": [f"{RESUMED}<user_message>\n{ASK}\n</user_message>"],
}


@pytest.mark.parametrize("name", SAID)
def test_the_users_words_among_results_are_the_new_ask(name: str) -> None:
    task = read_task({"messages": [user("Rename foo to bar"), CALL, user(*SAID[name])]})
    assert ASK in task.text
    assert "See to it" not in task.text
    assert "ACT MODE" not in task.text
    assert task.turn is TurnState.USER_TURN


def test_what_a_file_says_that_a_user_said_is_no_ask() -> None:
    read = "Interview 4\nQ: and the price?\nThe user said: it is too dear\nInterview 5"
    task = read_task({"messages": [user(ASK), CALL, user(result(read))]})
    assert task.text == ASK
    assert task.turn is TurnState.TOOL_LOOP


@pytest.mark.parametrize("reminder", [user(f"Add a docstring to step3\n\n{RULES}"), user("Add a docstring to step3")])
def test_files_that_were_handed_over_are_no_ask(reminder: dict[str, Any]) -> None:
    files = f"Files that you may edit, as they are now:\n\nsrc/invoice.ts\n```\n{CODE}\n```\n"
    outline = "An outline of other files of the repository, read-only:\n\nsrc/tax.ts:\n│export function vat\n"
    said = [user(files), assistant("Understood."), user(outline), assistant("Understood."), reminder]
    task = read_task({"messages": [*said, {"role": "system", "content": RULES}]})
    assert task.text == "Add a docstring to step3"


def test_a_scratchpad_is_a_tool_loop() -> None:
    pad = f"Question: {ASK}\nThought: search\nAction: search\nAction Input: x\nObservation: step41\nThought:"
    task = read_task({"messages": [user(pad)]})
    assert task.text == ASK
    assert task.turn is TurnState.TOOL_LOOP


OWN = (
    "why does this not render?\n\n<my-card>\n  <slot></slot>\n</my-card>",
    "what does <environment-details> mean in this log line?",
    "Design a board game.\n\n# Rules\n- two players\n- no dice",
    "Refactor this module into three files.\n\nDo not edit the tests, and show me the diff in one code block.",
    "I have two disks in RAID 1.\n\nMy question: can I lose one and keep writing?",
    "Translate this dialog:\nHuman: where is the station?\nAI: over there.",
    "Here is my code:\n```py\ndef a(): pass\n```\n\nwhy is it slow for long lists?",
    "[urgent] the site is down since six, where do I begin to look?",
    "<feedback>\nthe course was too long\n</feedback>\nsummarise it for the board",
)


@pytest.mark.parametrize("text", OWN)
def test_the_users_own_marks_stay(text: str) -> None:
    assert read_task({"messages": [user(text)]}).text == text


@pytest.mark.parametrize(
    "text",
    [
        "Result: 44 in my sheet, so where does your 41 come from?",
        "your tool call failed twice, so tell me which hosts you did not reach and why",
        "Command failed:\nnpm ERR! missing script\nwhat shall I do about it now, step by step?",
    ],
)
def test_what_a_user_says_about_results_is_theirs(text: str) -> None:
    task = read_task({"messages": [user("run the numbers"), assistant("Profit is 41."), user(text)]})
    assert text in task.text
    assert task.turn is TurnState.USER_TURN
