"""The public surface, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import router

SURFACE = {
    "AUTO", "Api", "ArtifactCorrupt", "ArtifactError", "ArtifactNotFound", "CatalogError", "ClientError", "Completion",
    "Decision",
    "Ledger", "Plan", "Reason", "Record", "RequestError", "Router", "Settings", "SettingsError", "Tier",
    "TierwiseError", "ToolCall", "Usage", "__version__", "complete", "complete_async", "record_of",
    "wrap",
}  # fmt: skip


def test_public_names_are_pinned() -> None:
    assert set(router.__all__) == SURFACE
    assert all(hasattr(router, name) for name in SURFACE)


def test_import_is_light() -> None:
    heavy = ["anthropic", "openai", "torch", "sklearn", "sentence_transformers", "pandas", "onnx", "training"]
    code = f"import router, sys; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_pickle_is_ever_loaded() -> None:
    import ast
    from pathlib import Path

    for path in Path(router.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"pickle", "joblib", "dill", "cloudpickle", "marshal"} & set(names), path
