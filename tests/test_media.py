"""What is not text counts as tokens, by size where its bytes say it."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest

from router import media
from router.cache.breakpoints import read_prefix
from router.types import Api


def png(width: int, height: int) -> str:
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height)
    return base64.b64encode(head + b"\0" * 3000).decode()


def jpeg(width: int, height: int) -> str:
    frame = b"\xff\xc0\x00\x11\x08" + struct.pack(">HH", height, width)
    return base64.b64encode(b"\xff\xd8\xff\xe0\x00\x10" + b"J" * 14 + frame + b"\0" * 3000).decode()


def gif(width: int, height: int) -> str:
    return base64.b64encode(b"GIF89a" + struct.pack("<HH", width, height) + b"\0" * 3000).decode()


def image(data: str) -> dict[str, Any]:
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}


@pytest.mark.parametrize("made", [png, jpeg, gif])
def test_an_images_tokens_go_by_its_size(made: Any) -> None:
    assert media.n_tokens(image(made(750, 100))) == 100
    assert media.n_tokens(image(made(8, 8))) == 60
    assert media.n_tokens(image(made(9000, 9000))) == 1600


@pytest.mark.parametrize(
    "part",
    [
        image("A" * 400_000),
        {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}},
        {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
        {"type": "input_image", "file_id": "file_1"},
    ],
)
def test_an_image_that_says_nothing_is_taken_for_a_large_one(part: dict[str, Any]) -> None:
    assert media.n_tokens(part) == 1500


def test_a_document_counts_by_its_bytes() -> None:
    source = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0" + "A" * 4_000_000}
    assert 90_000 < media.n_tokens({"type": "document", "source": source}) < 110_000


PARTS = [
    (Api.MESSAGES, lambda part: [{"role": "user", "content": [part]}], image(png(750, 1000))),
    (Api.MESSAGES,
     lambda part: [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [part]}]}],
     image(png(750, 1000))),
    (Api.CHAT, lambda part: [{"role": "user", "content": [part]}],
     {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png(750, 1000)}"}}),
    (Api.RESPONSES, lambda part: [{"role": "user", "content": [part]}],
     {"type": "input_image", "image_url": f"data:image/png;base64,{png(750, 1000)}"}),
    (Api.RESPONSES, lambda part: [{"type": "function_call_output", "call_id": "c", "output": [part]}],
     {"type": "input_image", "image_url": f"data:image/png;base64,{png(750, 1000)}"}),
]  # fmt: skip


@pytest.mark.parametrize(("api", "said", "part"), PARTS)
def test_a_prompts_size_holds_an_image_as_its_tokens(api: Api, said: Any, part: dict[str, Any]) -> None:
    name = "input" if api is Api.RESPONSES else "messages"
    size = read_prefix({name: said(part)}, api).size
    assert 1000 * media.CHARS_PER_TOKEN < size < 1000 * media.CHARS_PER_TOKEN + 300


def test_text_in_a_document_is_text() -> None:
    part = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "word " * 5000}}
    assert media.excess_chars({"role": "user", "content": [part]}) == 0
