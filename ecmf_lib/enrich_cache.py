"""Raw answers of language models on disk: nothing that was answered is asked, or paid, twice.

One SQLite file. Each answer is committed as it comes, in write-ahead mode: a process that is killed loses no answer
that it had received, and several processes can share the file. Checks are made again on reading, so that a better check
costs no request. No key of a server and no address is in here, but answers quote what people said: the file is as
private as the transcripts.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from ecmf_lib.bounded import check_file
from ecmf_lib.enrich_prompt import EnrichError
from ecmf_lib.enrich_talk import Reply, Request

FORMAT = 1
_AT_ONCE = 500  # keys a query
_PATIENCE = 60.0  # seconds to wait for another process that writes
_LONGEST = 2**24  # bytes of a text in it; answers have some thousand
_COLUMNS = "key model prompt clip text finish tokens_in tokens_out failure made".split()
_THINGS = "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"

_TABLE = """
CREATE TABLE IF NOT EXISTS replies (
  key BLOB PRIMARY KEY,
  model TEXT NOT NULL, prompt TEXT NOT NULL, clip TEXT NOT NULL,
  text TEXT NOT NULL, finish TEXT NOT NULL, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL,
  failure TEXT NOT NULL,
  made TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
)"""
_PUT = """
INSERT INTO replies (key, model, prompt, clip, text, finish, tokens_in, tokens_out, failure)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET text = excluded.text, finish = excluded.finish, tokens_in = excluded.tokens_in,
  tokens_out = excluded.tokens_out, failure = excluded.failure, made = CURRENT_TIMESTAMP
WHERE replies.failure <> ''"""


def _is_reply(reply: Reply) -> bool:
    kinds = [str, str, int, int, str]
    return all(isinstance(part, kind) for part, kind in zip(reply, kinds, strict=True))


class Replies:
    """The cache.

    Parameters
    ----------
    path : Path or None
        File, made with its folder when it is not there; None keeps everything in memory.

    Raises
    ------
    EnrichError
        If the file is no cache of answers, or cannot be written.
    """

    def __init__(self, path: Path | str | None):
        self.path = None if path is None else Path(path)
        try:
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                if self.path.exists():
                    check_file(self.path)
            # two threads use it: the caller's, and that of the requests. Closing it under the other's hands (a second
            # Ctrl-C while the first is being obeyed) would crash the interpreter, so each use holds the lock.
            self._lock = threading.Lock()
            self._base = sqlite3.connect(self.path or ":memory:", timeout=_PATIENCE, check_same_thread=False)
            self._open()
        except (sqlite3.Error, OSError) as error:
            raise EnrichError(
                f"{self.path}: cannot be used as the cache of answers ({error}); "
                "name another file, or move this one out of the way"
            ) from None

    def __enter__(self) -> Replies:
        return self

    def __exit__(self, *_) -> None:
        with self._lock:
            self._base.close()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Reply]:
        """Those of the keys that are there."""
        found = {}
        for at in range(0, len(keys), _AT_ONCE):
            part = keys[at : at + _AT_ONCE]
            query = f"SELECT key, {', '.join(Reply._fields)} FROM replies WHERE key IN ({','.join('?' * len(part))})"
            try:
                with self._lock:
                    replies = {key: Reply(*rest) for key, *rest in self._base.execute(query, part)}
                if not all(map(_is_reply, replies.values())):
                    raise sqlite3.DataError("an answer in it is no text")
                found |= replies
            except sqlite3.Error as error:
                raise EnrichError(f"{self.path}: cannot be read ({error}); delete it to ask again") from None
        return found

    def put(self, replies: Iterable[tuple[Request, str, Reply]]) -> None:
        """Keep (request, clip id, reply); on disk when this returns. A failure never takes the place of an answer."""
        rows = [
            (request.key, request.setup.model, request.prompt.name, clip, *reply) for request, clip, reply in replies
        ]
        try:
            with self._lock, self._base:
                self._base.executemany(_PUT, rows)
        except sqlite3.Error as error:
            raise EnrichError(f"{self.path}: an answer could not be kept ({error}); is the disk full?") from None

    def _open(self) -> None:
        self._base.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
        self._base.execute("PRAGMA trusted_schema = OFF")
        self._base.execute("PRAGMA journal_mode = WAL")
        # a commit survives the end of the process, though perhaps not a loss of power
        self._base.execute("PRAGMA synchronous = NORMAL")
        self._base.execute("BEGIN IMMEDIATE")  # one process makes the table, others find it whole
        with self._base:
            version = self._base.execute("PRAGMA user_version").fetchone()[0]
            tables = self._base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if version != FORMAT and (version or tables):
                raise sqlite3.DatabaseError(f"a database of another kind or version, expected {FORMAT}")
            self._base.execute(_TABLE)
            # a view, a trigger or a computed column would run what somebody else has written
            things = self._base.execute(_THINGS).fetchall()
            columns = [(name, hidden) for _, name, *_, hidden in self._base.execute("PRAGMA table_xinfo(replies)")]
            if things != [("table", "replies")] or columns != [(name, 0) for name in _COLUMNS]:
                raise sqlite3.DatabaseError("its tables are not those of a cache of answers")
            self._base.execute(f"PRAGMA user_version = {FORMAT}")
