"""The journal: a record is appended to a file before the reply's last bytes are passed on, and a thread applies it.

The append is one `write` to the page cache (a few microseconds, no fsync): it survives the death of the process, which
kill -9 is, but not a power cut, which can take the last seconds. The thread writes to the database in batches; while
the database is away the journal grows and is applied when it is back, also by the next process. How far it has been
applied is kept in the database in the same transaction as the records, so nothing is written twice.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from router.gateway.store import JournalEntry, Store, StoreAway

_logger = logging.getLogger("tierwise")

_APPLY_EVERY_S = 0.2
_REFRESH_EVERY_S = 5.0
_LONGEST_PAUSE_S = 15.0
_BATCH_BYTES = 64_000
_ROTATE_BYTES = 16_000_000

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(JournalEntry).decode


class Segment:
    """One journal file, locked by the process that appends to it."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self.applied = 0

    @classmethod
    def create(cls, folder: Path) -> Segment:
        """A new file. It gets its name only when it is locked, so that nobody takes it for an abandoned one."""
        name = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        hidden = folder / f"{name}.new"
        descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return cls(hidden.rename(folder / f"{name}.journal"), descriptor)

    @classmethod
    def adopt(cls, path: Path) -> Segment | None:
        """A file whose process is gone; None if that process lives."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if os.fstat(descriptor).st_nlink == 0:  # its process has just applied and deleted it
            os.close(descriptor)
            return None
        return cls(path, descriptor)

    def append(self, line: bytes) -> None:
        """Raises OSError when the line could not be written whole; the file is then as it was."""
        written = os.write(self.descriptor, line)
        if written != len(line):
            os.ftruncate(self.descriptor, self.size)
            raise OSError(f"only {written} of {len(line)} bytes fit into {self.path}")
        self.size += written

    def remove(self) -> None:
        """Delete the file, then let go of it."""
        self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


class Journal:
    """Appends from the event loop, applies from a thread of its own.

    `on_applied` is told of each batch that has reached the database, `on_refresh` is called between batches with the
    store (to read budgets). `trouble` says what is wrong with the database, None when it is well.
    """

    def __init__(
        self,
        folder: Path,
        store: Store,
        *,
        on_applied: Callable[[Sequence[JournalEntry]], None] = lambda _: None,
        on_refresh: Callable[[Store], None] = lambda _: None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.trouble: str | None = None
        self.n_lost = 0
        self._folder = folder
        self._store = store
        self._on_applied = on_applied
        self._on_refresh = on_refresh
        self._lock = threading.Lock()
        self._segment = Segment.create(folder)
        self._left_behind = [s for s in map(Segment.adopt, sorted(folder.glob("*.journal"))) if s is not None]
        self._stop = threading.Event()
        self._refreshed_s = float("-inf")
        self._thread = threading.Thread(target=self._run, name="tierwise-journal", daemon=True)
        self._thread.start()

    def append(self, entry: JournalEntry) -> None:
        """Keep a record; it survives the process from here on. A full disk is logged, never raised."""
        try:
            line = _encode(entry) + b"\n"
        except UnicodeEncodeError:  # a lone surrogate in what a caller named
            line = json.dumps(msgspec.to_builtins(entry), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        try:
            with self._lock:
                self._segment.append(line)
        except OSError as exc:
            self.n_lost += 1
            _logger.error("the record of %s is lost: %s", entry.request_id, exc)

    @property
    def backlog_bytes(self) -> int:
        """What has not reached the database yet."""
        return sum(segment.size - segment.applied for segment in (self._segment, *self._left_behind))

    def close(self) -> None:
        """Apply what is left, if the database is there; otherwise the next process does."""
        self._stop.set()
        self._thread.join()
        self._store.close()
        if self.backlog_bytes == 0:
            self._segment.remove()
        else:
            os.close(self._segment.descriptor)
        for segment in self._left_behind:
            os.close(segment.descriptor)

    def _run(self) -> None:
        pause_s = _APPLY_EVERY_S
        last = False
        while not last:
            last = self._stop.wait(pause_s)
            try:
                self._apply_all()
                if time.monotonic() - self._refreshed_s >= _REFRESH_EVERY_S:
                    self._on_refresh(self._store)
                    self._refreshed_s = time.monotonic()
            except Exception as exc:  # this thread must live: it is the only way to the database
                if self.trouble is None:
                    _logger.error("records are kept on disk until the database is back: %s", exc)
                self.trouble = str(exc) if isinstance(exc, StoreAway) else type(exc).__name__
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                continue
            if self.trouble is not None:
                _logger.warning("the database is back, the journal is applied")
            self.trouble, pause_s = None, _APPLY_EVERY_S

    def _apply_all(self) -> None:
        while self._left_behind:
            segment = self._left_behind[0]
            segment.applied = self._store.position(segment.path.name)
            self._apply(segment)
            segment.remove()
            self._left_behind.pop(0)
            self._store.forget(segment.path.name)
        self._apply(self._segment)
        if self._segment.size >= _ROTATE_BYTES:
            self._rotate()

    def _apply(self, segment: Segment) -> None:
        """Bring the complete lines of a segment to the database. Its last line may be torn: that reply never left."""
        while segment.applied < segment.size:
            block = os.pread(segment.descriptor, _BATCH_BYTES, segment.applied)
            if (end := block.rfind(b"\n") + 1) == 0:
                if len(block) < _BATCH_BYTES:
                    segment.applied = segment.size
                    return
                block = os.pread(segment.descriptor, segment.size - segment.applied, segment.applied)
                end = block.find(b"\n") + 1 or len(block)
            self._write(segment, block[:end].splitlines(keepends=True))

    def _write(self, segment: Segment, lines: list[bytes]) -> None:
        """One transaction; when the database refuses a record for what it is, the others still go in."""
        position = segment.applied + sum(map(len, lines))
        read = [(line, _read(line)) for line in lines]
        entries = [entry for _, entry in read if entry is not None]
        try:
            self._store.write_all(entries, segment.path.name, position)
        except StoreAway:
            raise
        except Exception as exc:
            if len(lines) > 1:
                for half in (lines[: len(lines) // 2], lines[len(lines) // 2 :]):
                    self._write(segment, half)
                return
            self.n_lost += 1
            _logger.error("a record cannot be stored: %s", type(exc).__name__)
            self._store.write_all([], segment.path.name, position)
        segment.applied = position
        self._set_aside([line for line, entry in read if entry is None])
        self._on_applied(entries if segment is self._segment else [])

    def _set_aside(self, lines: list[bytes]) -> None:
        """Keep what cannot be read, for a person to look at; what comes after it goes on."""
        if not lines:
            return
        self.n_lost += len(lines)
        path = self._folder / "unreadable.jsonl"
        _logger.error("%d lines of the journal cannot be read and are kept in %s", len(lines), path)
        with suppress(OSError), os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as file:
            file.writelines(line if line.endswith(b"\n") else line + b"\n" for line in lines)

    def _rotate(self) -> None:
        with self._lock:
            if self._segment.applied < self._segment.size:
                return
            old, self._segment = self._segment, Segment.create(self._folder)
        old.remove()
        self._store.forget(old.path.name)


def _read(line: bytes) -> JournalEntry | None:
    try:
        return _decode(line)
    except (msgspec.MsgspecError, ValueError, ArithmeticError, RecursionError):  # or it is no UTF-8
        return None
