"""A canary beside its champion: which of the two serves a conversation, and what becomes of it when users speak."""

from __future__ import annotations

import logging
import shlex
import threading
from collections.abc import Mapping
from pathlib import Path

import msgspec

from router.classifier import artifact, model
from router.classifier.artifact import Manifest, OperatingPoint
from router.classifier.model import Predictor
from router.classifier.pointer import POINTER_FILE, Feedback, Pointer, Verdict, read_pointer, verdict_of, write_pointer
from router.errors import ArtifactCorrupt

_logger = logging.getLogger("tierwise")


class Loaded(msgspec.Struct, frozen=True):
    """An artifact that is ready to serve; `name` is its folder's, by which a pointer and records call it."""

    name: str
    classifier: Predictor
    manifest: Manifest


class Canary:
    """The canary of a folder's pointer, until it is rolled back or promoted. Thread-safe, shared by all fleets."""

    def __init__(self, folder: Path, pointer: Pointer, loaded: Loaded, *, may_promote: bool = False) -> None:
        self.pointer = pointer
        self.loaded = loaded
        self._folder = folder
        self._may_promote = may_promote
        self._said = False
        self._lock = threading.Lock()

    def serves(self, conversation: str) -> Loaded | None:
        """The canary where a conversation, given by its key, is the canary's; None where it is the champion's."""
        return self.loaded if self.pointer.serves(conversation) == self.loaded.name else None

    def review(self, feedback: Mapping[str, Feedback]) -> Verdict:
        """Act on what users said of each artifact since the canary began.

        Worse for sure: the champion serves every conversation from now on, here and, by the pointer, everywhere. Not
        worse for sure: promoted where the settings allow it, else said in the log once.
        """
        with self._lock:
            before = self.pointer
            if before.canary is None or self._is_gone(before):
                return Verdict.HOLD
            names = before.champion, before.canary
            verdict, why = verdict_of(*(feedback.get(name, Feedback()) for name in names))
            if verdict is Verdict.ROLL_BACK:
                _logger.error("the canary %s is rolled back, %s serves: %s", before.canary, before.champion, why)
                self._replace(before, before.without_canary())
            elif verdict is Verdict.PROMOTE and self._may_promote:
                _logger.warning("the canary %s is promoted: %s", before.canary, why)
                self._replace(before, before.with_champion(before.canary))
            elif verdict is Verdict.PROMOTE and not self._said:
                self._said = True
                advice = f"tierwise models promote {before.canary} --models {shlex.quote(str(self._folder))}"
                _logger.warning("the canary %s is not worse: %s; %s", before.canary, why, advice)
        return verdict

    def _is_gone(self, pointer: Pointer) -> bool:
        """Whether somebody has taken the canary back in the meantime: a person, or another replica."""
        try:
            found = read_pointer(self._folder)
        except ArtifactCorrupt:
            return False
        if found is None or found.champion != pointer.champion or found.canary == pointer.canary:
            return False
        _logger.warning("the canary %s was taken back, %s serves", pointer.canary, pointer.champion)
        self.pointer = pointer.without_canary()
        return True

    def _replace(self, before: Pointer, after: Pointer) -> None:
        """Here at once; in the folder unless its pointer says something else by now."""
        self.pointer = after
        path = self._folder / POINTER_FILE
        try:
            if read_pointer(self._folder) == before:
                write_pointer(self._folder, after)
            else:
                _logger.warning("%s says something else by now and is left as it is", path)
        except (OSError, ArtifactCorrupt) as exc:
            _logger.error("%s could not be replaced, so this does not outlive the process: %s", path, exc)


def load(
    name_or_path: str | Path | None, points: Mapping[str, OperatingPoint], *, may_promote: bool = False
) -> tuple[Loaded, Canary | None]:
    """An artifact and, for a folder whose pointer has one, its canary; `points` are the settings' operating points.

    Raises ArtifactError or SettingsError for the artifact; a canary that cannot serve is left out and named in the log.
    """
    folder, pointer = artifact.pointed(name_or_path)
    champion = _ready(folder if pointer is None else artifact.member(folder, pointer.champion), points)
    if pointer is None or pointer.canary is None:
        return champion, None
    try:
        canary = _ready(artifact.member(folder, pointer.canary), points, is_canary=True)
    except Exception as exc:  # whatever is wrong with it, the champion is there
        why = f"{type(exc).__name__}: {exc}"
        _logger.error("the canary %s cannot serve, %s takes every conversation: %s", pointer.canary, champion.name, why)
        return champion, None
    missing = champion.manifest.operating_points.keys() - canary.manifest.operating_points.keys()
    if missing:
        _logger.warning(
            "the canary %s has no operating point %s: %s takes what asks for it",
            canary.name,
            " or ".join(sorted(missing)),
            champion.name,
        )
    return champion, Canary(folder, pointer, canary, may_promote=may_promote and not missing)


def _ready(folder: Path, points: Mapping[str, OperatingPoint], *, is_canary: bool = False) -> Loaded:
    """An artifact with the settings' operating points; those tuned for another one are none of a canary's."""
    found = artifact.load(folder)
    if is_canary:
        points = {n: point for n, point in points.items() if point.artifact in (None, artifact.name_of(found.manifest))}
    return Loaded(folder.name, model.shared(found), artifact.with_points(found.manifest, points))
