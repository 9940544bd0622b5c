"""MovieTweetings: real movie ratings as recommendation queries with labels and real locality.

The question: will this user rate this movie at least 8? Everything a query knows lies before it in time.

Tables: user, movie, the movie's genres (a bag), the user's earlier likes (a bag of movies, latest first, at most
``history``). Dense: movie's and user's rating counts so far (log), their mean rating so far (shrunk towards the global
mean so far), the movie's age in years, and the movie's share of likes so far.

Dataset: S. Dooms et al., "MovieTweetings: a Movie Rating Dataset Collected From Twitter", CrowdRec at RecSys 2013.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..contract import DataError
from ..contract.reading import integer, read_lines, reading
from .batch import QueryBatch

__all__ = ["DENSE_FEATURES", "LIKE", "MovieTweetings"]

LONGEST_LINE = 1 << 16  # bytes
LATEST = 1 << 40  # seconds
LIKE = 8  # a rating of at least this is a like
DENSE_FEATURES = ("movie_count", "user_count", "movie_mean", "user_mean", "movie_age", "movie_likes", "user_likes")


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number, fields) of each line that is not empty."""
    if not path.is_file():
        raise DataError("file", None, "not found: must be in a MovieTweetings folder (ratings.dat, movies.dat)", str(path))
    for i, line in read_lines(path, LONGEST_LINE):
        if line:
            yield i, line.split("::")


@dataclass(frozen=True)
class MovieTweetings:
    """All queries in time order. ``rows``: rows of the four tables (user, movie, genres, likes)."""

    queries: QueryBatch
    rows: tuple[int, int, int, int]
    train_end: int  # queries before this are for training
    valid_end: int  # then validation up to here, then the held-out test queries

    @classmethod
    def load(cls, folder: str | Path, history: int = 20) -> MovieTweetings:
        """Read ``ratings.dat`` and ``movies.dat``. Raises :class:`DataError` naming file, line and field."""
        if history < 1:
            raise DataError("history", history, "must be at least 1")
        folder = Path(folder)
        genres: dict[str, list[int]] = {}
        years: dict[str, int] = {}
        names: dict[str, int] = {}
        with reading(folder / "movies.dat"):
            for i, f in _lines(folder / "movies.dat"):
                if len(f) != 3:
                    raise DataError(f"line {i}", len(f), "must have 3 fields: movie::title (year)::genres")
                genres[f[0]] = [names.setdefault(g, len(names)) for g in f[2].split("|") if g]
                year = re.search(r"\(([0-9]{4})\)\s*$", f[1])
                years[f[0]] = int(year[1]) if year else 2000
        ratings = []
        with reading(folder / "ratings.dat"):
            for i, f in _lines(folder / "ratings.dat"):
                if len(f) != 4:
                    raise DataError(f"line {i}", "::".join(f)[:60], "must be user::movie::rating::unix time")
                rating, time = integer(f[2], f"line {i} rating", 0, 10), integer(f[3], f"line {i} time", 0, LATEST)
                if f[1] not in genres:
                    raise DataError(f"line {i} movie", f[1], "must be in movies.dat")
                ratings.append((time, i, f[0], f[1], rating))
            if len(ratings) < 100:
                raise DataError("ratings", len(ratings), "must hold at least 100 ratings")
        ratings.sort()

        # Row numbers come from the movie file and the users' order of first rating; user 0 stands for "not seen in training"
        movie_row = {m: k for k, m in enumerate(sorted(genres))}
        train_end, valid_end = int(len(ratings) * 0.8), int(len(ratings) * 0.9)
        user_row: dict[str, int] = {}
        for _, _, u, _, _ in ratings[:train_end]:
            user_row.setdefault(u, len(user_row) + 1)

        n = len(ratings)
        dense = np.zeros((n, len(DENSE_FEATURES)), np.float32)
        labels = np.zeros(n, np.float32)
        users, movies, genre_bags, like_bags = [], [], [], []
        m_stat: dict[str, list[float]] = {}
        u_stat: dict[str, list[float]] = {}
        likes: dict[str, list[int]] = {}
        total, total_likes, count = 0.0, 0.0, 0
        for k, (t, _, u, mv, r) in enumerate(ratings):
            ms, us = m_stat.setdefault(mv, [0, 0, 0]), u_stat.setdefault(u, [0, 0, 0])
            mean = total / count if count else 7.0
            like_rate = total_likes / count if count else 0.5
            year = 1970 + t / 31_556_952
            dense[k] = (np.log1p(ms[0]), np.log1p(us[0]), (ms[1] + 5 * mean) / (ms[0] + 5) - mean,
                        (us[1] + 3 * mean) / (us[0] + 3) - mean, min(max(year - years[mv], 0), 50) / 10,
                        (ms[2] + 5 * like_rate) / (ms[0] + 5) - like_rate, (us[2] + 3 * like_rate) / (us[0] + 3) - like_rate)
            labels[k] = r >= LIKE
            users.append([user_row.get(u, 0)])
            movies.append([movie_row[mv]])
            genre_bags.append(genres[mv])
            like_bags.append(likes.get(u, [])[-history:][::-1])
            for s in (ms, us):
                s[0] += 1
                s[1] += r
                s[2] += r >= LIKE
            if r >= LIKE:
                likes.setdefault(u, []).append(movie_row[mv])
            total, total_likes, count = total + r, total_likes + (r >= LIKE), count + 1
        queries = QueryBatch.from_lists(dense, [users, movies, genre_bags, like_bags], labels)
        rows = (len(user_row) + 1, len(movie_row), max(1, len(names)), len(movie_row))
        return cls(queries, rows, train_end, valid_end)

    @property
    def train(self) -> QueryBatch:
        return self.queries[: self.train_end]

    @property
    def valid(self) -> QueryBatch:
        return self.queries[self.train_end : self.valid_end]

    @property
    def test(self) -> QueryBatch:
        return self.queries[self.valid_end :]
