"""Find, verify and parse a classifier artifact: a folder with manifest.json, model.onnx and tokenizer.model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import msgspec

from router.classifier.pointer import Pointer, read_pointer
from router.errors import ArtifactCorrupt, ArtifactNotFound, SettingsError, TierwiseError
from router.types import Tier

SHIPPED = "complexity-v3"
"""The artifact that this version loads by default."""

OPTIONAL = {"large": "complexity-large-v4", "cascade": "complexity-cascade-v4"}
"""Short names of the artifacts that ask an encoder, of the package `tierwise-large` (deploy/large)."""

SCHEMA_VERSION = 3
RUNTIME_FILES = ("model.onnx", "tokenizer.model")
OPTIONAL_FILES = ("classes.npz",)
_SHIPPED_FOLDERS = (Path(__file__).parents[1] / "models", Path(__file__).parents[2] / "models")


class FileEntry(msgspec.Struct, frozen=True):
    """What a file of the artifact must be: lower-case hex SHA-256 and size."""

    sha256: str
    bytes: int


class Input(msgspec.Struct, frozen=True, omit_defaults=True):
    """One input of the graph; a dimension is a number or the name of a free one.

    Where `begin_id` and `end_id` are set, a text's tokens go in between them, in their order; else each once.
    """

    dtype: str
    shape: tuple[str | int, ...]
    names: tuple[str, ...] = ()
    pad_id: int | None = None
    begin_id: int | None = None
    end_id: int | None = None


class Window(msgspec.Struct, frozen=True, omit_defaults=True):
    """How much of a text is read, from its start and from its end: in characters, and of these in tokens where set."""

    head_chars: int
    tail_chars: int
    head_tokens: int | None = None
    tail_tokens: int | None = None


class OperatingPoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """A threshold per tier below the top, with the target it was tuned for and what it achieved, on which rows.

    A tier is chosen when its P(suffices) reaches its threshold. `achieved` and its 95 % `interval` are the share of
    rows sent below their required tier (with outcomes: how far the answers fall behind the top tier's); `shares` is the
    share of rows sent to each tier. `tierwise tune` adds that `target` holds with probability `confidence`, tested on
    `n_rows` labels; `cost`, that of always taking the top tier being 1; and the `artifact` that it holds for.
    """

    thresholds: Mapping[Tier, float]
    target: str
    achieved: float
    interval: tuple[float, float]
    shares: Mapping[Tier, float]
    split: str
    confidence: float | None = None
    n_rows: int | None = None
    cost: float | None = None
    artifact: str | None = None


class Cascade(msgspec.Struct, frozen=True):
    """Two artifacts in one: `small` decides, but where its P(the simple tier suffices) lies in [low, high) it asks
    `large`, whose word then weighs `weight` in [0, 1]. Each is named by its folder and the SHA-256 of its manifest.

    `large` is not asked about a text of which more than the share `max_non_ascii` lies beyond ASCII: it reads English.
    """

    small: str
    small_sha256: str
    large: str
    large_sha256: str
    low: float
    high: float
    weight: float
    max_non_ascii: float


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """manifest.json. `metrics` and `training_data` are for people and for the model card; the runtime ignores them.

    A cascade has no graph of its own: no `inputs`, `window` or `files`.
    """

    schema_version: int
    name: str
    version: int
    tiers: tuple[Tier, ...]
    max_novelty: float
    operating_points: Mapping[str, OperatingPoint]
    inputs: Mapping[str, Input] = {}
    window: Window = Window(0, 0)
    files: Mapping[str, FileEntry] = {}
    cascade: Cascade | None = None
    metrics: Mapping[str, object] = {}
    training_data: tuple[Mapping[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Artifact:
    """A verified artifact, its small files in memory; `parts` are the small and the large one of a cascade."""

    path: Path
    manifest: Manifest
    model: bytes = b""
    tokenizer: bytes = b""
    classes: bytes = b""
    parts: tuple[Artifact, ...] = ()

    @property
    def n_bytes(self) -> int:
        """Bytes of the graphs and tokenizers, those of its parts included."""
        return sum(len(part.model) + len(part.tokenizer) for part in (self, *self.parts))


def find(name_or_path: str | Path | None = None) -> Path:
    """The folder of an artifact: a path, or a name under models/ (in the package or in the source tree).

    A folder of artifacts with a pointer (router/classifier/pointer.py) stands for its champion. Raises
    ArtifactNotFound, listing where it looked.
    """
    folder, pointer = pointed(name_or_path)
    return folder if pointer is None else member(folder, pointer.champion)


def pointed(name_or_path: str | Path | None = None) -> tuple[Path, Pointer | None]:
    """What a name or path stands for: an artifact's folder, or a folder of artifacts and its pointer. As `find`."""
    wanted = Path(OPTIONAL.get(str(name_or_path), name_or_path or SHIPPED))
    tried = [wanted, *(folder / wanted for folder in _folders())]
    if name_or_path is None:
        tried = tried[1:]  # the shipped artifact never comes from the working directory
    for folder in tried:
        if (folder / "manifest.json").is_file():
            return folder, None
        if (pointer := read_pointer(folder)) is not None:
            return folder, pointer
    places = ", ".join(str(folder) for folder in tried)
    if wanted.name in OPTIONAL.values():
        raise ArtifactNotFound(
            f"no artifact {str(name_or_path)!r}: it is in the package tierwise-large, which is not installed "
            "(docs/decide.md); or leave `artifact` unset for the shipped one"
        )
    raise ArtifactNotFound(
        f"no artifact {str(wanted)!r}: no manifest.json in {places}; "
        "give a folder that `python -m training build` wrote"
    )


def _folders() -> Iterator[Path]:
    """Where shipped artifacts lie: in the package or the source tree, and in the package of the large ones."""
    yield from _SHIPPED_FOLDERS
    spec = find_spec("tierwise_large")
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin).parent


def member(folder: Path, name: str) -> Path:
    """The artifact that a pointer of `folder` names: one in it, or a shipped one. Raises ArtifactNotFound."""
    for parent in (folder, *_folders()):
        if (parent / name / "manifest.json").is_file():
            return parent / name
    there = {file.parent.name for parent in (folder, *_folders()) for file in parent.glob("*/manifest.json")}
    raise ArtifactNotFound(
        f"{folder} has no artifact {name!r}, there are {', '.join(sorted(there)) or 'none'}; restore it, or "
        "`tierwise models promote` another"
    )


def load(name_or_path: str | Path | None = None) -> Artifact:
    """Read an artifact and check every runtime file against the manifest.

    Raises ArtifactNotFound for a missing file; ArtifactCorrupt when a hash, a size or the manifest itself is wrong.
    """
    folder = find(name_or_path)
    manifest = _manifest(folder / "manifest.json")
    if manifest.cascade is not None:
        return Artifact(folder, manifest, parts=_parts(folder, manifest.cascade))
    names = (*RUNTIME_FILES, *filter(manifest.files.__contains__, OPTIONAL_FILES))
    files = {name: _verified(folder / name, manifest.files.get(name)) for name in names}
    return Artifact(folder, manifest, files["model.onnx"], files["tokenizer.model"], files.get("classes.npz", b""))


def with_points(manifest: Manifest, points: Mapping[str, OperatingPoint]) -> Manifest:
    """The manifest with operating points of the settings; they win over its own of the same name.

    Raises SettingsError for a point that lacks a threshold or was tuned for another artifact.
    """
    loaded = name_of(manifest)
    for name, point in points.items():
        missing = [tier.value for tier in manifest.tiers[:-1] if tier not in point.thresholds]
        if missing:
            raise SettingsError(f"operating point {name!r} has no threshold for {', '.join(missing)}; add it")
        _check_thresholds(point, f"operating point {name!r}", SettingsError)
        if point.artifact not in (None, loaded):
            raise SettingsError(
                f"operating point {name!r} was tuned for {point.artifact}, the artifact in use is {loaded}; run "
                f"`tierwise tune --name {name}` for it, or remove the point"
            )
    return msgspec.structs.replace(manifest, operating_points={**manifest.operating_points, **points})


def _check_thresholds(point: OperatingPoint, where: str, error: type[TierwiseError]) -> None:
    """A NaN reaches nothing and a negative one lets everything through: neither is what anybody meant."""
    for tier, threshold in point.thresholds.items():
        if not 0 <= threshold <= 1:
            raise error(f"{where}: the threshold of {tier} is {threshold}, expected 0 to 1")


def name_of(manifest: Manifest) -> str:
    """The name by which an operating point says what it was tuned for."""
    return f"{manifest.name}-v{manifest.version}"


def entry(data: bytes) -> FileEntry:
    """The manifest's line for a file's content."""
    return FileEntry(hashlib.sha256(data).hexdigest(), len(data))


def _manifest(path: Path) -> Manifest:
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ArtifactCorrupt(f"{path}: {exc}; restore the file or rebuild the artifact") from exc
    if manifest.schema_version != SCHEMA_VERSION:
        raise ArtifactCorrupt(
            f"{path}: schema_version is {manifest.schema_version}, this version reads {SCHEMA_VERSION}; "
            "retrain or rebuild the artifact with this version, or install the tierwise that wrote it"
        )
    if manifest.tiers != tuple(Tier):
        raise ArtifactCorrupt(f"{path}: tiers are {manifest.tiers}, expected {tuple(Tier)} in that order")
    for point, values in manifest.operating_points.items():
        missing = set(manifest.tiers[:-1]) - set(values.thresholds)
        if missing:
            raise ArtifactCorrupt(f"{path}: operating point {point!r} has no threshold for {sorted(missing)}")
        _check_thresholds(values, f"{path}: operating point {point!r}", ArtifactCorrupt)
    if not 0 <= manifest.max_novelty <= 1:
        raise ArtifactCorrupt(f"{path}: max_novelty is {manifest.max_novelty}, expected 0 to 1")
    sizes = [size for size in msgspec.structs.astuple(manifest.window) if size is not None]
    if min(sizes) < 0:
        raise ArtifactCorrupt(f"{path}: the window is {manifest.window}, expected no negative size")
    return manifest


def _parts(folder: Path, cascade: Cascade) -> tuple[Artifact, ...]:
    parts = []
    for name, sha256 in ((cascade.small, cascade.small_sha256), (cascade.large, cascade.large_sha256)):
        part = load(member(folder.parent, name))
        found = entry((part.path / "manifest.json").read_bytes()).sha256
        if found != sha256 or part.manifest.cascade is not None:
            raise ArtifactCorrupt(
                f"{folder / 'manifest.json'}: it was tuned with the {name} of manifest sha256 {sha256[:12]}..., found "
                f"{found[:12]}...; install the versions that belong together, or build the cascade again"
            )
        parts.append(part)
    return tuple(parts)


def _verified(path: Path, expected: FileEntry | None) -> bytes:
    if expected is None or not re.fullmatch(r"[0-9a-f]{64}", expected.sha256):
        raise ArtifactCorrupt(f"{path.parent / 'manifest.json'}: no valid sha256 for {path.name!r}")
    try:
        data = path.read_bytes()
    except FileNotFoundError as exc:
        raise ArtifactNotFound(f"{path} is missing, though the manifest lists it; restore the artifact") from exc
    actual = entry(data)
    if actual != expected:
        raise ArtifactCorrupt(
            f"{path}: sha256 {actual.sha256[:12]}... of {actual.bytes} bytes, the manifest says "
            f"{expected.sha256[:12]}... of {expected.bytes}; the file was changed or cut: restore it"
        )
    return data
