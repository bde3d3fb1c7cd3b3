"""The openai SDK that you have, routed over GPT models. Without a key, against the embedded upstream:

    python -m router.offline --port 8485 &
    OPENAI_BASE_URL=http://127.0.0.1:8485/v1 OPENAI_API_KEY=any python openai_sdk.py

With your own key: OPENAI_API_KEY=... python openai_sdk.py
"""

from __future__ import annotations

import openai

from router import Router, record_of, wrap

router = Router.load(fleet="gpt")
with wrap(openai.OpenAI(), router) as client:
    chat = client.chat.completions.create(
        model="auto", messages=[{"role": "user", "content": "Which ISO week is 27 November 2026?"}]
    )
    response = client.responses.create(
        model="auto:quality",  # another operating point, for this call
        input="Find every race: workers lock a key for 30 s, compute up to 45 s, then write.",
        extra_body={"router": {"min_tier": "moderate"}},  # a bound, for this call
    )
    for name, reply in (("chat.completions", chat), ("responses", response)):
        record = record_of(reply)
        print(f"{name:<18}{record.tier:<10}{record.model:<16}{record.reason}")
