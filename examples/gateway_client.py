"""A program that knows nothing of Tierwise: the openai SDK, the model "auto", and the gateway's address.

    python -m router.offline --port 8485 &
    ANTHROPIC_API_KEY=any OPENAI_API_KEY=any tierwise serve &
    OPENAI_BASE_URL=http://127.0.0.1:8484/v1 OPENAI_API_KEY=any python gateway_client.py

tierwise.toml of this folder sends the gateway to the embedded upstream, so that no key is needed.
"""

from __future__ import annotations

import openai

with openai.OpenAI() as client:
    raw = client.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": "Is Slovenia in zone 3?"}]
    )
    print(f"{raw.headers['x-tierwise-tier']} -> {raw.headers['x-tierwise-model']}, {raw.headers['x-tierwise-reason']}")
    print(f"answered: {bool(raw.parse().choices[0].message.content)}")
