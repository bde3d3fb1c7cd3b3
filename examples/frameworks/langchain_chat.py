"""LangChain through the gateway: the model is "auto", the address is the gateway's, in either format.

pip install langchain-openai langchain-anthropic
GATEWAY_URL=http://127.0.0.1:8484 python langchain_chat.py
"""

from __future__ import annotations

import os

from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI

GATEWAY = os.environ.get("GATEWAY_URL", "http://127.0.0.1:8484")
QUESTION = "Is Slovenia in zone 3?"

chat = ChatOpenAI(model="auto", base_url=f"{GATEWAY}/v1", api_key="any", include_response_headers=True)
reply = chat.invoke(QUESTION)
headers = reply.response_metadata["headers"]
print(f"{headers['x-tierwise-tier']} -> {reply.response_metadata['model_name']}, {headers['x-tierwise-reason']}")

claude = ChatAnthropic(model="auto", base_url=GATEWAY, api_key="any", max_tokens=512)
print(f"streamed: {bool(''.join(part.text for part in claude.stream(QUESTION)))}")
