"""LlamaIndex through the gateway.

pip install llama-index-llms-openai-like
GATEWAY_URL=http://127.0.0.1:8484 python llama_index_chat.py
"""

from __future__ import annotations

import os

from llama_index.llms.openai_like import OpenAILike

GATEWAY = os.environ.get("GATEWAY_URL", "http://127.0.0.1:8484")

chat = OpenAILike(model="auto", api_base=f"{GATEWAY}/v1", api_key="any", is_chat_model=True, context_window=200_000)
reply = chat.complete("Is Slovenia in zone 3?")
print(f"answered by {reply.raw.model}: {bool(reply.text)}")
print(f"streamed: {bool(''.join(part.delta for part in chat.stream_complete('Is Slovenia in zone 3?')))}")
