"""The OpenAI Agents SDK over your own SDK client, wrapped: no gateway runs.

pip install openai-agents tierwise
OPENAI_API_KEY=... python openai_agents.py
"""

from __future__ import annotations

import openai
from agents import Agent, Runner, function_tool, set_default_openai_client, set_tracing_disabled

from router import Router, wrap

set_tracing_disabled(True)  # it would send traces to OpenAI with the same key
set_default_openai_client(wrap(openai.AsyncOpenAI(), Router.load(fleet="gpt")))


@function_tool
def zone(country: str) -> str:
    """The zone of a country."""
    return "3" if country == "Slovenia" else "unknown"


agent = Agent(name="support", instructions="You answer customers of a carrier.", model="auto", tools=[zone])
found = Runner.run_sync(agent, "Is Slovenia in zone 3?")
print(f"answered: {bool(found.final_output)}, {len(found.raw_responses)} call")
