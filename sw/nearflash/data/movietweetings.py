"""MovieTweetings: real movie ratings as recommendation queries with labels and real locality.

The question: will this user rate this movie at least 8? Everything a query knows lies before it in time.

Tables: user, movie, the movie's genres (a bag), the user's earlier likes (a bag of movies, latest first, at most
``history``). Dense: movie's and user's rating counts so far (log), their mean rating so far (shrunk towards the global
mean so far), the movie's age in years, and the movie's share of likes so far.

Dataset: S. Dooms et al., "MovieTweetings: a Movie Rating Dataset Collected From Twitter", CrowdRec at RecSys 2013.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..contract import DataError
from .batch import QueryBatch

__all__ = ["DENSE_FEATURES", "LIKE", "MovieTweetings"]

LIKE = 8  # a rating of at least this is a like
DENSE_FEATURES = ("movie_count", "user_count", "movie_mean", "user_mean", "movie_age", "movie_likes", "user_likes")


def _lines(path: Path) -> list[list[str]]:
    if not path.is_file():
        raise DataError("dataset", str(path), "file not found: must be a MovieTweetings folder (ratings.dat, movies.dat)")
    return [line.split("::") for line in path.read_text(encoding="utf-8").splitlines() if line]


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
        folder = Path(folder)
        genres: dict[str, list[int]] = {}
        years: dict[str, int] = {}
        names: dict[str, int] = {}
        for i, f in enumerate(_lines(folder / "movies.dat"), 1):
            if len(f) != 3:
                raise DataError(f"movies.dat line {i}", len(f), "must have 3 fields: movie::title (year)::genres")
            genres[f[0]] = [names.setdefault(g, len(names)) for g in f[2].split("|") if g]
            year = re.search(r"\((\d{4})\)\s*$", f[1])
            years[f[0]] = int(year[1]) if year else 2000
        ratings = []
        for i, f in enumerate(_lines(folder / "ratings.dat"), 1):
            if len(f) != 4 or not (f[2].isdigit() and f[3].isdigit()):
                raise DataError(f"ratings.dat line {i}", "::".join(f)[:60], "must be user::movie::rating::unix time")
            if not 0 <= int(f[2]) <= 10:
                raise DataError(f"ratings.dat line {i} rating", f[2], "must be from 0 to 10")
            ratings.append((int(f[3]), i, f[0], f[1], int(f[2])))
        if len(ratings) < 100:
            raise DataError("ratings.dat", len(ratings), "must hold at least 100 ratings")
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
        for k, (t, i, u, mv, r) in enumerate(ratings):
            if mv not in movie_row:
                raise DataError(f"ratings.dat line {i} movie", mv, "must be in movies.dat")
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
