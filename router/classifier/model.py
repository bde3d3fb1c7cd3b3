"""Text -> P(each tier suffices), through one fused ONNX graph; the only importer of `onnxruntime`."""

from __future__ import annotations

import threading
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

import msgspec
import numpy as np
import numpy.typing as npt

from router.classifier.artifact import Artifact, Cascade, Input, Manifest
from router.classifier.classes import CLASSES_FILE, Classes
from router.classifier.features import STRUCTURE, Encoder, Features, Order
from router.errors import ArtifactCorrupt
from router.types import Tier

if TYPE_CHECKING:
    import onnxruntime as ort  # 30 ms, which only those wait for who load an artifact


class Prediction(msgspec.Struct, frozen=True):
    """`p_suffices` is one q a tier, cheap to strong, non-decreasing, the last 1.0; `novelty`, in [0, 1], is the
    probability that the text is unlike anything the model was fitted on, 1.0 for a text without tokens.
    """

    p_suffices: tuple[float, ...]
    novelty: float


_WARM_TOKENS = (16, 32, 64, 128, 256, 512, 1024)
"""Sizes of the buffers that are made at load: distinct tokens of nearly all texts, rounded up to a power of two."""

_EXTERNAL = b"\x0a\x08location"
"""How a tensor's `external_data` names its file (onnx.proto: StringStringEntryProto); none of our graphs has one."""

_lock = threading.Lock()
_shared: WeakValueDictionary[bytes, Predictor] = WeakValueDictionary()


class Predictor(Protocol):
    """What an artifact becomes in memory: text in, prediction out. Thread-safe."""

    classes: Classes | None

    def predict(self, text: str, traffic_class: str = "") -> Prediction:
        """P(suffices) of one text, of a class of traffic. Raises RequestError if `text` is not a string."""
        ...

    def predict_batch(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """P(suffices) of many texts: float32 [n_texts, n_tiers]."""
        ...


def shared(artifact: Artifact) -> Predictor:
    """The one predictor of an artifact in this process, as long as somebody uses it: it takes 22 MB and 0.1 s."""
    parts = artifact.parts or (artifact,)
    files = (file for part in parts for file in (part.model, part.tokenizer))
    key = sha256(b"".join((msgspec.json.encode(artifact.manifest), *files))).digest()
    with _lock:
        found = _shared.get(key)
        if found is None:
            found = _shared[key] = of(artifact)
    return found


def of(artifact: Artifact) -> Predictor:
    """A classifier, or a cascade of two. Raises ArtifactCorrupt as they do."""
    cascade = artifact.manifest.cascade
    if cascade is None:
        return Classifier(artifact)
    small, large = map(Classifier, artifact.parts)
    return CascadeClassifier(small, large, cascade)


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
    """Features and graph together. Thread-safe; one inference thread."""

    def __init__(self, artifact: Artifact) -> None:
        """Raises ArtifactCorrupt if the graph cannot be loaded or does not fit the manifest and this version."""
        manifest = artifact.manifest
        where = artifact.path / "manifest.json"
        self._order = _order(manifest)
        needed = {"ids", "structure"} if self._order is None else {"ids"}
        missing = needed - set(manifest.inputs)
        if missing:
            raise ArtifactCorrupt(f"{where}: inputs lack {sorted(missing)}; rebuild the artifact")
        if self._order is None and manifest.inputs["structure"].names != STRUCTURE:
            raise ArtifactCorrupt(
                f"{where}: structural inputs are {manifest.inputs['structure'].names}, this version computes "
                f"{STRUCTURE}; install a matching tierwise or rebuild the artifact"
            )
        self.encoder = Encoder(
            artifact.tokenizer,
            head_chars=manifest.window.head_chars,
            tail_chars=manifest.window.tail_chars,
            order=self._order,
        )
        self.classes = Classes(artifact.classes, artifact.path / CLASSES_FILE) if artifact.classes else None
        self._pad_id = manifest.inputs["ids"].pad_id or 0
        if self._pad_id != self.encoder.n_pieces:
            raise ArtifactCorrupt(
                f"{where}: pad_id is {self._pad_id}, expected {self.encoder.n_pieces}, the number of pieces in "
                "tokenizer.model; rebuild the artifact"
            )
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._of_thread = threading.local()
        if _EXTERNAL in artifact.model:
            raise ArtifactCorrupt(
                f"{artifact.path / 'model.onnx'} keeps weights in other files, which nothing vouches for"
            )
        try:
            self._session = ort.InferenceSession(artifact.model, options, providers=["CPUExecutionProvider"])
            self._warm_up()
        except Exception as exc:  # onnxruntime has one exception class per failure, with no common public parent
            raise ArtifactCorrupt(f"{artifact.path / 'model.onnx'} cannot be loaded: {exc}") from exc

    def predict(self, text: str, traffic_class: str = "") -> Prediction:
        """P(suffices) of one text, of a class of traffic. Raises RequestError if `text` is not a string."""
        features = self.encoder.encode(text)
        found = self.run(features)
        if self.classes is None or not traffic_class:
            return found
        return Prediction(self.classes.corrected(traffic_class, found.p_suffices, features), found.novelty)

    def run(self, features: Features) -> Prediction:
        """P(suffices) from ready features."""
        n_tokens = features.ids.size
        if self._order is not None:
            return self._run_in_order(features)
        buffers = self._buffers(n_tokens)
        buffers.ids[:n_tokens] = features.ids
        buffers.ids[n_tokens:] = self._pad_id
        buffers.structure[:] = features.structure
        self._session.run_with_iobinding(buffers.binding)
        return Prediction(tuple(buffers.p_suffices.tolist()), buffers.novelty.item() if n_tokens else 1.0)

    def _run_in_order(self, features: Features) -> Prediction:
        """Padding costs a transformer as much as tokens do: each text at its own size."""
        n_tokens = features.ids.size
        ids = features.ids if n_tokens else np.array([self._pad_id], np.int64)
        p_suffices, novelty = self._session.run(["p_suffices", "novelty"], {"ids": ids[None]})
        return Prediction(tuple(p_suffices[0].tolist()), novelty.item() if n_tokens else 1.0)

    def predict_batch(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """P(suffices) of many texts: float32 [n_texts, n_tiers]. Rows are padded to the longest text's tokens."""
        features = [self.encoder.encode(text) for text in texts]
        longest = max((f.ids.size for f in features), default=0) or 1
        ids = np.full((len(features), longest), self._pad_id, np.int64)
        structure = np.zeros((len(features), len(STRUCTURE)), np.float32)
        for row, f in enumerate(features):
            ids[row, : f.ids.size] = f.ids
            structure[row] = f.structure
        inputs = {"ids": ids, "structure": structure} if self._order is None else {"ids": ids}
        (q,) = self._session.run(["p_suffices"], inputs)
        return np.asarray(q, np.float32)

    def _warm_up(self) -> None:
        """Make this thread's buffers and run each once: the first run of a session takes 0.4 ms, the next 0.02."""
        structure = np.zeros(len(STRUCTURE), np.float32)
        if self._order is not None:
            self.predict("warm up")
            return
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


class CascadeClassifier:
    """A small classifier that asks a large one where it is not sure. Novelty is the small one's word."""

    classes: Classes | None = None

    def __init__(self, small: Classifier, large: Classifier, cascade: Cascade) -> None:
        self.small, self.large = small, large
        self._cascade = cascade

    def predict(self, text: str, traffic_class: str = "") -> Prediction:  # noqa: ARG002
        """P(suffices) of one text, whatever its class. Raises RequestError if `text` is not a string."""
        features = self.small.encoder.encode(text)
        first = self.small.run(features)
        if not self._asks(first.p_suffices[0], features):
            return first
        weight, second = self._cascade.weight, self.large.predict(text)
        pairs = zip(first.p_suffices, second.p_suffices, strict=True)
        return Prediction(tuple(weight * q + (1 - weight) * p for p, q in pairs), first.novelty)

    def predict_batch(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """P(suffices) of many texts: float32 [n_texts, n_tiers]."""
        q = self.small.predict_batch(texts)
        features = map(self.small.encoder.encode, texts)
        asked = [i for i, (p, f) in enumerate(zip(q[:, 0].tolist(), features, strict=True)) if self._asks(p, f)]
        if asked:
            weight = self._cascade.weight
            q[asked] = weight * self.large.predict_batch([texts[i] for i in asked]) + (1 - weight) * q[asked]
        return q

    def _asks(self, p_simple: float, features: Features) -> bool:
        cascade = self._cascade
        in_band = cascade.low <= p_simple < cascade.high
        return in_band and features.structure[_NON_ASCII] <= cascade.max_non_ascii


_NON_ASCII = STRUCTURE.index("non_ascii_share")


def _order(manifest: Manifest) -> Order | None:
    """How the artifact reads tokens: in order, or, None, each once."""
    ids, window = manifest.inputs.get("ids", Input("int64", ())), manifest.window
    head, tail, begin, end = window.head_tokens, window.tail_tokens, ids.begin_id, ids.end_id
    if head is None or tail is None or begin is None or end is None:
        return None
    return Order(head, tail, begin, end)
