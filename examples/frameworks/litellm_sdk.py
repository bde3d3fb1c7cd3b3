"""LiteLLM's SDK through the gateway, in either format.

pip install litellm
GATEWAY_URL=http://127.0.0.1:8484 python litellm_sdk.py
"""

from __future__ import annotations

import os

import litellm

GATEWAY = os.environ.get("GATEWAY_URL", "http://127.0.0.1:8484")
MESSAGES = [{"role": "user", "content": "Is Slovenia in zone 3?"}]

for model, address in (("openai/auto", f"{GATEWAY}/v1"), ("anthropic/auto", GATEWAY)):
    reply = litellm.completion(model=model, api_base=address, api_key="any", max_tokens=512, messages=MESSAGES)
    print(f"{model} was answered by {reply.model}: {bool(reply.choices[0].message.content)}")
