"""Any JSON value in any field of a request: a plan, or an error that says what is wrong with it; never another one."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from router import Router, Settings
from router.errors import RequestError
from router.types import Api

ODD: tuple[Any, ...] = (
    None, True, 0, 27804, -1.5, "", "x", [], {}, [None], [1], ["a"], [[]], [{}], {"type": 3}, {"a": []},
    [{"type": None}], [{"type": "text", "text": 3}], [{"function": 3}], [{"name": 3, "input_schema": []}],
    [{"type": "function", "function": {"name": 3, "parameters": 5}}],
)  # fmt: skip
ASK = [{"role": "user", "content": "hi"}]
PLAIN: dict[Api, dict[str, Any]] = {
    Api.MESSAGES: {"max_tokens": 9, "messages": ASK},
    Api.CHAT: {"messages": ASK},
    Api.RESPONSES: {"input": "hi"},
}
FIELDS = {
    Api.MESSAGES: """
        max_tokens messages metadata stop_sequences stream system temperature thinking tool_choice tools top_k top_p
        output_config service_tier context_management container mcp_servers cache_control speed inference_geo router
    """,
    Api.CHAT: """
        messages tools tool_choice functions function_call response_format stop stream stream_options temperature n
        max_tokens max_completion_tokens reasoning_effort metadata modalities audio logit_bias parallel_tool_calls
        prediction seed service_tier store user verbosity web_search_options prompt_cache_key router logprobs
    """,
    Api.RESPONSES: """
        input instructions tools tool_choice text reasoning stream include max_output_tokens metadata user store router
        previous_response_id conversation prompt truncation service_tier background prompt_cache_key
    """,
}


@pytest.fixture(scope="module", params=["claude", "gpt", "gemini"])
def of_fleet(request: pytest.FixtureRequest) -> Router:
    return Router.load(config=Settings(fleet=request.param))


@pytest.mark.parametrize("api", list(Api))
def test_in_a_field(of_fleet: Router, api: Api) -> None:
    for field in FIELDS[api].split():
        for value in ODD:
            for model in ("auto", "gpt-6-luna" if api is Api.MESSAGES else "claude-haiku-4-5"):
                for counts_only in (False, True):
                    with suppress(RequestError):
                        of_fleet.plan({**PLAIN[api], "model": model, field: value}, api, counts_only=counts_only)


@pytest.mark.parametrize("api", list(Api))
def test_in_a_message(of_fleet: Router, api: Api) -> None:
    part = "input" if api is Api.RESPONSES else "messages"
    for role in ("user", "assistant", "system", "tool", None, 3):
        for value in ODD:
            for name in ("content", "tool_calls", "tool_call_id", "name", "reasoning_content"):
                odd = {"role": role, "content": "so", name: value}
                with suppress(RequestError):
                    of_fleet.plan({**PLAIN[api], "model": "auto", part: [*ASK, odd, *ASK]}, api)
