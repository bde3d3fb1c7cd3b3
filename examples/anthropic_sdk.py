"""The anthropic SDK that you have, routed. Without a key, against the embedded upstream:

    python -m router.offline --port 8485 &
    ANTHROPIC_BASE_URL=http://127.0.0.1:8485 ANTHROPIC_API_KEY=any python anthropic_sdk.py

With your own key: ANTHROPIC_API_KEY=... python anthropic_sdk.py
"""

from __future__ import annotations

from pathlib import Path

import anthropic

from router import record_of, wrap

SYSTEM = Path(__file__).with_name("system_prompt.md").read_text("utf-8")
QUESTIONS = (
    "Do pallets have to be wrapped?",
    "Which arguments do we have against the limit of 8.33 SDR, how strong is each, and what must we prove?",
)

with wrap(anthropic.Anthropic()) as client:
    for question in QUESTIONS:
        reply = client.messages.create(
            model="auto", max_tokens=300, system=SYSTEM, messages=[{"role": "user", "content": question}]
        )
        record = record_of(reply)
        print(f"{record.tier:<10}{record.model:<20}{record.reason:<18}{question[:48]}")
