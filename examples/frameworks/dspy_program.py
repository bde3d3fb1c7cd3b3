"""A DSPy program through the gateway.

pip install dspy
GATEWAY_URL=http://127.0.0.1:8484 python dspy_program.py
"""

from __future__ import annotations

import os

import dspy

GATEWAY = os.environ.get("GATEWAY_URL", "http://127.0.0.1:8484")

chat = dspy.LM("openai/auto", api_base=f"{GATEWAY}/v1", api_key="any", cache=False)
(answer,) = chat("Is Slovenia in zone 3?")
print(f"answered by {chat.history[-1]['response_model']}: {bool(answer)}")
