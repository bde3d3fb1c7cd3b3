"""A stream, and its record once it has ended. Without a key, against the embedded upstream:

    python -m router.offline --port 8485 &
    ANTHROPIC_BASE_URL=http://127.0.0.1:8485 ANTHROPIC_API_KEY=any python streaming.py

With your own key: ANTHROPIC_API_KEY=... python streaming.py
"""

from __future__ import annotations

import asyncio

import anthropic

from router import record_of, wrap

ASK = "Explain Incoterms DAP and DDP to a baker who sends her first cake tins to Norway."


async def main() -> None:
    async with wrap(anthropic.AsyncAnthropic()) as client:
        n_pieces = 0
        async with client.messages.stream(
            model="auto", max_tokens=300, messages=[{"role": "user", "content": ASK}]
        ) as stream:
            async for piece in stream.text_stream:  # show each piece to your user as it comes
                n_pieces += bool(piece)
        record = record_of(stream)
        print(f"text came in pieces: {n_pieces > 1}")
        print(f"{record.tier} -> {record.model}, cost known: {record.cost_usd is not None}")


asyncio.run(main())
