"""Text -> P(each tier suffices), through one fused ONNX graph; the only importer of `onnxruntime`."""

from __future__ import annotations

import threading
from hashlib import sha256
from weakref import WeakValueDictionary

import msgspec
import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from router.classifier.artifact import Artifact
from router.classifier.features import STRUCTURE, Encoder, Features
from router.errors import ArtifactCorrupt
from router.types import Tier


class Prediction(msgspec.Struct, frozen=True):
    """`p_suffices` is one q a tier, cheap to strong, non-decreasing, the last 1.0; `novelty`, in [0, 1], is the
    probability that the text is unlike anything the model was fitted on, 1.0 for a text without tokens.
    """

    p_suffices: tuple[float, ...]
    novelty: float


_WARM_TOKENS = (16, 32, 64, 128, 256, 512, 1024)
"""Sizes of the buffers that are made at load: distinct tokens of nearly all texts, rounded up to a power of two."""

_lock = threading.Lock()
_shared: WeakValueDictionary[bytes, Classifier] = WeakValueDictionary()


class _Buffers:
    """Input and output memory for up to `n_tokens` tokens, bound to a session once: a third less than binding anew."""

    def __init__(self, session: ort.InferenceSession, n_tokens: int) -> None:
        self.ids = np.empty(n_tokens, np.int64)
        self.structure = np.empty(len(STRUCTURE), np.float32)
        self.p_suffices = np.empty(len(Tier), np.float32)
        self.novelty = np.empty(1, np.float32)
        self.binding = session.io_binding()
        for name, array in (("ids", self.ids), ("structure", self.structure)):
            self.binding.bind_input(name, "cpu", 0, array.dtype, (1, array.size), array.ctypes.data)
        for name, array in (("p_suffices", self.p_suffices), ("novelty", self.novelty)):
            self.binding.bind_output(name, "cpu", 0, array.dtype, (1, array.size), array.ctypes.data)


class Classifier:
    """The shipped model: features and graph together. Thread-safe; one inference thread, as the graph is tiny."""

    def __init__(self, artifact: Artifact) -> None:
        """Raises ArtifactCorrupt if the graph cannot be loaded or does not fit the manifest and this version."""
        manifest = artifact.manifest
        where = artifact.path / "manifest.json"
        missing = {"ids", "structure"} - set(manifest.inputs)
        if missing:
            raise ArtifactCorrupt(f"{where}: inputs lack {sorted(missing)}; rebuild the artifact")
        if manifest.inputs["structure"].names != STRUCTURE:
            raise ArtifactCorrupt(
                f"{where}: structural inputs are {manifest.inputs['structure'].names}, this version computes "
                f"{STRUCTURE}; install a matching tierwise or rebuild the artifact"
            )
        self.encoder = Encoder(
            artifact.tokenizer,
            head_chars=manifest.window.head_chars,
            tail_chars=manifest.window.tail_chars,
        )
        self._pad_id = manifest.inputs["ids"].pad_id or 0
        if self._pad_id != self.encoder.n_pieces:
            raise ArtifactCorrupt(
                f"{where}: pad_id is {self._pad_id}, expected {self.encoder.n_pieces}, the number of pieces in "
                "tokenizer.model; rebuild the artifact"
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._of_thread = threading.local()
        try:
            self._session = ort.InferenceSession(artifact.model, options, providers=["CPUExecutionProvider"])
            self._warm_up()
        except Exception as exc:  # onnxruntime has one exception class per failure, with no common public parent
            raise ArtifactCorrupt(f"{artifact.path / 'model.onnx'} cannot be loaded: {exc}") from exc

    @classmethod
    def shared(cls, artifact: Artifact) -> Classifier:
        """The one classifier of an artifact in this process, as long as somebody uses it: it takes 22 MB and 0.1 s."""
        key = sha256(b"".join((msgspec.json.encode(artifact.manifest), artifact.model, artifact.tokenizer))).digest()
        with _lock:
            found = _shared.get(key)
            if found is None:
                found = _shared[key] = cls(artifact)
        return found

    def predict(self, text: str) -> Prediction:
        """P(suffices) of one text. Raises RequestError if `text` is not a string."""
        return self.run(self.encoder.encode(text))

    def run(self, features: Features) -> Prediction:
        """P(suffices) from ready features."""
        n_tokens = features.ids.size
        buffers = self._buffers(n_tokens)
        buffers.ids[:n_tokens] = features.ids
        buffers.ids[n_tokens:] = self._pad_id
        buffers.structure[:] = features.structure
        self._session.run_with_iobinding(buffers.binding)
        return Prediction(tuple(buffers.p_suffices.tolist()), buffers.novelty.item() if n_tokens else 1.0)

    def predict_batch(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """P(suffices) of many texts: float32 [n_texts, n_tiers]. Rows are padded to the longest text's tokens."""
        features = [self.encoder.encode(text) for text in texts]
        longest = max((f.ids.size for f in features), default=0) or 1
        ids = np.full((len(features), longest), self._pad_id, np.int64)
        structure = np.zeros((len(features), len(STRUCTURE)), np.float32)
        for row, f in enumerate(features):
            ids[row, : f.ids.size] = f.ids
            structure[row] = f.structure
        (q,) = self._session.run(["p_suffices"], {"ids": ids, "structure": structure})
        return np.asarray(q, np.float32)

    def _warm_up(self) -> None:
        """Make this thread's buffers and run each once: the first run of a session takes 0.4 ms, the next 0.02."""
        structure = np.zeros(len(STRUCTURE), np.float32)
        for n_tokens in _WARM_TOKENS:
            self.run(Features(np.full(n_tokens, self._pad_id), structure))

    def _buffers(self, n_tokens: int) -> _Buffers:
        """This thread's buffers of the next power of two, so that a few sizes (the window bounds them) serve all."""
        capacity = 1 << max(n_tokens - 1, 15).bit_length()
        of_size: dict[int, _Buffers] = self._of_thread.__dict__.setdefault("of_size", {})
        try:
            return of_size[capacity]
        except KeyError:
            return of_size.setdefault(capacity, _Buffers(self._session, capacity))
