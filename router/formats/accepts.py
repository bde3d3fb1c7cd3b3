"""A body written for another model -> one that this model accepts, with a note for each change; pure.

What a model accepts is in catalog.toml (`catalog.Dialect`); what is done about the rest is here. A setting is replaced
by the nearest one that the model takes, upwards where there is a choice, or dropped; what cannot be changed without
changing what was asked for is an `obstacle`, and another tier should get the request. Thinking blocks are never
touched: a model drops those of another unbilled, and one that binds them refuses an edited history
(https://platform.claude.com/docs/en/build-with-claude/thinking, 2026-11-22).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from router.catalog import EFFORTS, PROVIDERS, Dialect, Model
from router.errors import RequestError
from router.formats.states import is_sealed
from router.formats.translations import Translations
from router.types import Api, Body, Reach, Task

NO_SAMPLING_SINCE = "2026-10-21"
"""The anthropic-version from which temperature, top_p and top_k are refused for every model, even at their default."""

MIN_BUDGET_TOKENS = 1024
"""The least that `thinking.budget_tokens` may be (types/thinking_config_enabled_param.py of anthropic 2.12)."""

LARGEST_BUDGET_TOKENS = 16_000
"""The most given where adaptive thinking becomes a budget: beyond it Anthropic advises streaming or batches."""

_SAMPLING = {
    Api.MESSAGES: ("temperature", "top_p", "top_k"),
    Api.CHAT: ("temperature", "top_p", "logprobs", "top_logprobs"),
    Api.RESPONSES: ("temperature", "top_p", "top_logprobs"),
}
_CACHE_FIELDS = ("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention")


def adapt(
    body: Body, api: Api, model: Model | None, version: str | None = None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A copy of `body` that `model` accepts, and what was changed; unchanged for an unknown model.

    `version` is the request's anthropic-version header. Adapting twice changes nothing more. Lists and objects that
    need no change are the caller's own; none is modified. `api` is the format that the model is asked in.
    """
    sent, notes = dict(body), list[str]()
    if model is None:
        return sent, ()
    _max_tokens(sent, api, model, notes)
    _effort(sent, api, model, notes)
    if api is Api.MESSAGES:
        _thinking(sent, model, notes)
        _tool_choice(sent, model, notes)
        _system_messages(sent, model, notes)
    else:
        _cache_fields(sent, api, model, notes)
    _sampling(sent, api, model, version, notes)
    return sent, tuple(notes)


def with_effort(body: Body, api: Api, effort: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A copy of `body` with its tier's effort, which comes before the caller's: a tier is a model and an effort."""
    sent, asked = dict(body), _asked_effort(body, api)
    _set_effort(sent, api, effort)
    return sent, () if asked in (None, effort) else (f"effort {asked} sent as {effort}: the tier's",)


def obstacle(model: Model, task: Task, said: Translations | None = None) -> str | None:
    """Why `model` cannot do what is asked, in words for a note; None when it can (after `adapt`).

    `task` is what was read of the body, `said` the body, where there is one. A forced tool is an obstacle, although
    `adapt` has a way round it, because a caller who forces one counts on getting it.
    """
    n_tokens = model.estimate_tokens(task.n_chars)
    if n_tokens > model.context_tokens:
        return f"about {n_tokens} tokens, {model.id} holds {model.context_tokens}"
    if task.has_images and not model.vision:
        return f"images, {model.id} reads none"
    if task.has_tools and not model.tools:
        return f"tools, {model.id} calls none"
    if said is None:
        return None
    if refuses_prefill(model, said):
        return f"a prefilled answer, {model.id} takes none"
    api = spoken(said.body, said.asked, model)
    if api is said.asked:
        return _messages_obstacle(said.body, model) if api is Api.MESSAGES else None
    try:
        said.to(api)
    except RequestError as exc:
        return str(exc)
    return None


def refuses_prefill(model: Model, said: Translations) -> bool:
    """Whether a body ends in a begun answer that `model` does not go on with.

    OpenAI's formats take one, and answer it; who asks for one in Messages wants it continued.
    """
    messages = _items(said.body.get("input" if said.asked is Api.RESPONSES else "messages"))
    if model.dialect.prefill or not messages or not _is_prefill(messages[-1]):
        return False
    return Api.MESSAGES in (said.asked, spoken(said.body, said.asked, model))


def stays_on_model(body: Body) -> bool:
    """Whether a Responses conversation must stay on the model that it is on.

    True when its `input` carries encrypted items (reasoning, compaction). Only what made them is known to read them,
    they do not say which model that was, and one that cannot be read is a 400 (`invalid_encrypted_content`); neither
    the types of openai 3.54 (responses/response_reasoning_item_param.py) nor the guide promises more.
    """
    carried = (item.get("encrypted_content") for item in _items(body.get("input")) if isinstance(item, Mapping))
    return any(content and not is_sealed(content) for content in carried)


def speaks(api: Api, model: Model) -> bool:
    """Whether requests to a model may be written in this format."""
    return api in PROVIDERS[model.provider].formats


def spoken(body: Body, api: Api, model: Model) -> Api:
    """The format in which `model` is asked what `body`, in the format `api`, asks.

    The caller's where its provider takes that, else the provider's first; and Responses, not Chat Completions, for
    tools where the model calls them only there.
    """
    formats = PROVIDERS[model.provider].formats
    found = api if api in formats else formats[0]
    if found is Api.CHAT and body.get("tools") and _calls_tools_on_responses(body, api, model):
        return Api.RESPONSES
    return found


def sent_as(body: Body, api: Api, model: Model, reach: Reach) -> Api:
    """As `spoken`, as far as the dispatcher reaches."""
    if reach is Reach.SDK and not (api is Api.CHAT and model.provider == "openai"):
        return api
    return spoken(body, api, model)


def _calls_tools_on_responses(body: Body, api: Api, model: Model) -> bool:
    """Always; or unless it does not reason, which is what a caller of Chat Completions may have asked for."""
    if model.dialect.chat_tools != "effort_none":
        return model.dialect.chat_tools == "responses"
    return (_asked_effort(body, api) or model.dialect.default_effort) != "none"


def _max_tokens(sent: dict[str, Any], api: Api, model: Model, notes: list[str]) -> None:
    name = {Api.MESSAGES: "max_tokens", Api.RESPONSES: "max_output_tokens"}.get(api)
    if name is None:
        names = model.dialect.max_tokens_names
        name = next((n for n in names if sent.get(n) is not None), names[0])
        for other in ("max_tokens", "max_completion_tokens"):
            if other not in names and sent.get(other) is not None:
                value = sent.pop(other)
                sent[name] = value if sent.get(name) is None else sent[name]
                notes.append(f"{other} sent as {name}: {model.id} does not take it")
    asked, most = sent.get(name), model.max_output_tokens
    if most is not None and isinstance(asked, int) and asked > most:
        sent[name] = most
        notes.append(f"{name} {asked} clipped to {most}: {model.id} writes no more")


def _effort(sent: dict[str, Any], api: Api, model: Model, notes: list[str]) -> None:
    """The nearest effort upwards that the model takes; without any, the setting is dropped."""
    asked, efforts = _asked_effort(sent, api), model.dialect.efforts
    if asked is None or asked in efforts or asked not in EFFORTS:
        return
    if not efforts:
        _set_effort(sent, api, None)
        notes.append(f"effort {asked} dropped: {model.id} has no such setting")
        return
    above = (effort for effort in efforts if EFFORTS.index(effort) > EFFORTS.index(asked))
    given = next(above, efforts[-1])
    _set_effort(sent, api, given)
    notes.append(f"effort {asked} sent as {given}: {model.id} takes {', '.join(efforts)}")


def _asked_effort(body: Body, api: Api) -> Any:
    if api is Api.CHAT:
        return body.get("reasoning_effort")
    holder = body.get("output_config" if api is Api.MESSAGES else "reasoning")
    return holder.get("effort") if isinstance(holder, Mapping) else None


def _set_effort(sent: dict[str, Any], api: Api, effort: str | None) -> None:
    if api is Api.CHAT:
        sent["reasoning_effort"] = effort
        if effort is None:
            del sent["reasoning_effort"]
        return
    name = "output_config" if api is Api.MESSAGES else "reasoning"
    rest = {key: value for key, value in (sent.get(name) or {}).items() if key != "effort"}
    sent[name] = rest if effort is None else {**rest, "effort": effort}
    if not sent[name] or (effort is None and api is Api.RESPONSES):  # a model without efforts takes no `reasoning`
        del sent[name]


def _thinking(sent: dict[str, Any], model: Model, notes: list[str]) -> None:
    given, accepted = sent.get("thinking"), model.dialect.thinking
    kind = given.get("type") if isinstance(given, Mapping) else None
    if kind is None or given is None:
        return
    if kind in accepted:
        _keep_thinking(sent, kind, model, notes)
    elif kind == "enabled" and "adaptive" in accepted:
        sent["thinking"] = {"type": "adaptive", **{k: v for k, v in given.items() if k == "display"}}
        notes.append(f"thinking enabled sent as adaptive, without its budget: {model.id} decides how much")
    elif kind == "adaptive" and "enabled" in accepted:
        _budget(sent, given, model, notes)
    elif kind == "disabled" and "between_tools" in accepted:
        sent["thinking"] = {"type": "between_tools"}
        notes.append(f"thinking disabled sent as between_tools: {model.id} has no less")
    elif kind == "between_tools" and "disabled" in accepted:
        sent["thinking"] = {"type": "disabled"}
        notes.append(f"thinking between_tools sent as disabled: {model.id} does not take it")
        _keep_thinking(sent, "disabled", model, notes)
    else:
        del sent["thinking"]
        notes.append(f"thinking {kind} dropped: {model.id} takes {', '.join(accepted)}")


def _keep_thinking(sent: dict[str, Any], kind: str, model: Model, notes: list[str]) -> None:
    """The two limits of a mode that the model takes: efforts without thinking, and a budget below max_tokens."""
    if kind == "disabled":
        effort = _asked_effort(sent, Api.MESSAGES) or model.dialect.default_effort or "high"
        if effort in EFFORTS and EFFORTS.index(effort) > EFFORTS.index(model.dialect.disabled_up_to):
            del sent["thinking"]
            notes.append(f"thinking disabled dropped: {model.id} takes it up to effort {model.dialect.disabled_up_to}")
    elif kind == "enabled" and any("clipped" in note for note in notes):
        budget, most = sent["thinking"].get("budget_tokens"), sent["max_tokens"] - 1
        if isinstance(budget, int) and budget > most >= MIN_BUDGET_TOKENS:
            sent["thinking"] = {**sent["thinking"], "budget_tokens": most}
            notes.append(f"thinking budget {budget} clipped to {most}: it must be less than max_tokens")


def _budget(sent: dict[str, Any], given: Mapping[str, Any], model: Model, notes: list[str]) -> None:
    """Adaptive thinking as a budget of half of max_tokens, where that is allowed."""
    max_tokens = sent.get("max_tokens")
    budget = min(max_tokens // 2, LARGEST_BUDGET_TOKENS) if isinstance(max_tokens, int) else 0
    if budget < MIN_BUDGET_TOKENS or _forces_tool(sent):
        del sent["thinking"]
        why = "max_tokens leaves no room for a budget" if budget < MIN_BUDGET_TOKENS else "a tool is forced"
        notes.append(f"thinking adaptive dropped: {model.id} needs a budget, and {why}")
        return
    kept = {key: value for key, value in given.items() if key == "display"}
    sent["thinking"] = {"type": "enabled", "budget_tokens": budget, **kept}
    notes.append(f"thinking adaptive sent as a budget of {budget} tokens: {model.id} does not take it")


def _forces_tool(body: Body) -> bool:
    choice = body.get("tool_choice")
    return isinstance(choice, Mapping) and choice.get("type") in ("any", "tool")


def _tool_choice(sent: dict[str, Any], model: Model, notes: list[str]) -> None:
    if model.dialect.forced_tool_choice or not _forces_tool(sent):
        return
    choice = sent["tool_choice"]
    sent["tool_choice"] = {**{k: v for k, v in choice.items() if k != "name"}, "type": "auto"}
    notes.append(f"tool_choice {choice['type']} sent as auto: {model.id} cannot be forced to call a tool")


def _system_messages(sent: dict[str, Any], model: Model, notes: list[str]) -> None:
    if model.dialect.system_in_messages:
        return
    messages = _items(sent.get("messages"))
    system = [m for m in messages if type(m) is dict and m.get("role") == "system"]  # isinstance would take 0.3 us each
    if not system:
        return
    moved = [block for m in system for block in _text_blocks(m.get("content"))]
    sent["messages"] = [m for m in messages if not _is_system(m)]
    sent["system"] = [*_text_blocks(sent.get("system")), *moved]
    notes.append(f"system messages moved into `system`: {model.id} takes none among the messages")


def _is_system(message: Any) -> bool:
    return type(message) is dict and message.get("role") == "system"


def _text_blocks(content: Any) -> Sequence[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) and content else _items(content)


def _cache_fields(sent: dict[str, Any], api: Api, model: Model, notes: list[str]) -> None:
    known = model.dialect.cache
    for name in _CACHE_FIELDS:
        value = sent.get(name)
        if value is None:
            continue
        if name == "prompt_cache_options":
            takes = "breakpoints" in known
        elif name == "prompt_cache_retention":
            takes = f"retention_{value}" in known or (model.provider == "openai" and not known)
        else:
            takes = model.provider == "openai"
        if not takes:
            del sent[name]
            notes.append(f"{name} dropped: {model.id} does not take it")
    part = "messages" if api is Api.CHAT else "input"
    if "breakpoints" not in known and any(map(_has_breakpoint, _items(sent.get(part)))):
        sent[part] = [_without_breakpoints(m) if _has_breakpoint(m) else m for m in sent[part]]
        notes.append(f"prompt_cache_breakpoint dropped: {model.id} does not take it")


def _has_breakpoint(message: Any) -> bool:
    content = message.get("content") if type(message) is dict else None
    if type(content) is not list:
        return False
    for part in content:  # noqa: SIM110 - a generator would take twice as long
        if type(part) is dict and "prompt_cache_breakpoint" in part:
            return True
    return False


def _without_breakpoints(message: Mapping[str, Any]) -> dict[str, Any]:
    parts = [
        {k: v for k, v in part.items() if k != "prompt_cache_breakpoint"} if isinstance(part, Mapping) else part
        for part in message["content"]
    ]
    return {**message, "content": parts}


def _sampling(sent: dict[str, Any], api: Api, model: Model, version: str | None, notes: list[str]) -> None:
    for name in _refused_sampling(sent, api, model.dialect, version):
        if sent.get(name) is not None:
            del sent[name]
            notes.append(f"{name} dropped: {model.id} rejects it{_with_what(name, sent, api, version)}")


def _refused_sampling(sent: Body, api: Api, dialect: Dialect, version: str | None) -> Iterator[str]:
    names, takes = _SAMPLING[api], dialect.sampling
    if api is Api.MESSAGES and version is not None and version >= NO_SAMPLING_SINCE:
        takes = "none"
    if takes == "effort_none":
        takes = "any" if (_asked_effort(sent, api) or dialect.default_effort) == "none" else "none"
    if takes in ("none", "default"):
        yield from names
    elif api is Api.MESSAGES:
        thinking = sent.get("thinking")
        if isinstance(thinking, Mapping) and thinking.get("type") in ("enabled", "adaptive"):
            if sent.get("temperature") != 1:
                yield "temperature"
            yield "top_k"
        if takes == "one" and sent.get("temperature") is not None:
            yield "top_p"


def _with_what(name: str, sent: Body, api: Api, version: str | None) -> str:
    if api is Api.MESSAGES and version is not None and version >= NO_SAMPLING_SINCE:
        return f" under anthropic-version {version}"
    return " together with temperature" if name == "top_p" and sent.get("temperature") is not None else ""


def _messages_obstacle(body: Body, model: Model) -> str | None:
    dialect, messages = model.dialect, _items(body.get("messages"))
    if not dialect.forced_tool_choice and _forces_tool(body):
        return f"a forced tool, {model.id} cannot be forced"
    edits = dialect.binds_thinking and not dialect.system_in_messages and any(map(_is_system, messages))
    if edits and any(map(_has_thinking, messages)):
        return f"system messages among thinking blocks, {model.id} would refuse the edited history"
    return None


def is_paused(body: Body, api: Api) -> bool:
    """Whether a Messages conversation ends in a turn to be resumed, which the provider's own tools have paused."""
    messages = _items(body.get("messages")) if api is Api.MESSAGES else ()
    return bool(messages) and _is_assistants(messages[-1]) and _runs_tools(messages[-1])


def _is_prefill(message: Any) -> bool:
    """Whether the last message is a begun answer, and not a turn to be resumed after the provider's own tools."""
    return _is_assistants(message) and not _runs_tools(message) and not message.get("tool_calls")


def _is_assistants(message: Any) -> bool:
    return isinstance(message, Mapping) and message.get("role") == "assistant"


def _runs_tools(message: Mapping[str, Any]) -> bool:
    """Whether there are blocks of tools that run at the provider: searches, code, connectors, with their results."""
    kinds = (str(block.get("type")) for block in _items(message.get("content")) if isinstance(block, Mapping))
    return any(kind.endswith(("_tool_use", "_tool_result")) for kind in kinds)


def _has_thinking(message: Any) -> bool:
    blocks = _items(message.get("content")) if isinstance(message, Mapping) else ()
    return any(isinstance(block, Mapping) and block.get("type") == "thinking" for block in blocks)


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()
