"""A Pydantic AI agent over your own SDK client, wrapped: no gateway runs.

pip install "pydantic-ai-slim[anthropic]" tierwise
ANTHROPIC_API_KEY=... python pydantic_ai_agent.py
"""

from __future__ import annotations

import anthropic
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.providers.anthropic import AnthropicProvider

from router import wrap

client = wrap(anthropic.AsyncAnthropic())
agent = Agent(AnthropicModel("auto", provider=AnthropicProvider(anthropic_client=client)))


@agent.tool_plain
def zone(country: str) -> str:
    """The zone of a country."""
    return "3" if country == "Slovenia" else "unknown"


found = agent.run_sync("Is Slovenia in zone 3?")
print(f"answered by {found.all_messages()[-1].model_name}: {bool(found.output)}")
