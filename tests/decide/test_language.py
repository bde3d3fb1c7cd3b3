from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.decide import language


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is the capital of Peru?", "en"),
        ("Was ist die Hauptstadt von Peru?", "de"),
        ("Quelle est la capitale du Pérou ?", "fr"),
        ("¿Cuál es la capital de Perú?", "es"),
        ("Qual é a capital do Peru e por que não é Cusco?", "pt"),
        ("Qual è la capitale del Perù?", "it"),
        ("Wat is de hoofdstad van Peru?", "nl"),
        ("Jaka jest stolica Peru i dlaczego nie jest to Cusco?", "pl"),
        ("ペルーの首都はどこですか", "ja"),
        ("秘鲁的首都是哪里？", "zh"),
        ("페루의 수도는 어디인가요?", "ko"),
        ("Какой город — столица Перу?", "ru"),
        ("Яке місто є столицею Перу?", "uk"),
        ("ما هي عاصمة بيرو؟", "ar"),
        ("پایتخت پرو کجاست؟", "fa"),
        ("```py\nfor key in values: print(key)\n```\nПочему это медленно работает, если таблица маленькая?", "ru"),
        ("x + y = 1", None),
        ("1234", None),
        ("", None),
    ],
)
def test_language(text: str, expected: str | None) -> None:
    assert language.detect(text) == expected


@given(st.text())
def test_any_text_has_a_listed_language_or_none(text: str) -> None:
    assert language.detect(text) in (None, *language.LANGUAGES)
