"""What is taken out of a text that is kept, and what stays."""

from __future__ import annotations

import pytest

from router.redaction import redacted


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("use sk-ant-api03-AbCdEf0123456789_xyz please", "use [key] please"),
        ("ghp_0123456789abcdefghij0123456789 leaked", "[key] leaked"),
        ("AKIAIOSFODNN7EXAMPLE is public", "[key] is public"),
        ("Authorization: Bearer abc123def456", "Authorization: Bearer [key]"),
        ('{"password": "correct-horse"}', '{"password": "[key]"}'),
        ("api_key=0123abcd4567", "api_key=[key]"),
        ("write to ann.lee+x@mail.example.co.uk today", "write to [e-mail] today"),
        ("call +49 (0)30 1234567 or 030-1234567", "call [phone] or [phone]"),
        ("card 4111 1111 1111 1111, exp 12/27", "card [card], exp 12/27"),
        ("card 4111 1111 1111 1112", "card 4111 1111 1111 1112"),
    ],
)
def test_what_has_a_form_of_its_own_goes(text: str, kept: str) -> None:
    assert redacted(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "Explain the token bucket algorithm.",
        "I forgot my password, where is the reset link?",
        "Add 1234567 and 89.5, then divide by 2026-11-27.",
        "order 2026-000-1234, version 1.2.3.4, 192.168.0.1",
        "def f(key): return key_value_store[key]",
        "a@b is no address, nor is @someone",
        "",
    ],
)
def test_what_only_looks_so_stays(text: str) -> None:
    assert redacted(text) == text
