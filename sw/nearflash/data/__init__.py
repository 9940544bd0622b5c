"""Queries: real data sets, traces and synthetic locality. NumPy only."""

from .batch import QueryBatch
from .block_load import BlockLoad
from .block_traces import read_block_trace
from .criteo import Criteo
from .locality import HistogramLocality, StackDistance, read_histograms
from .movietweetings import MovieTweetings
from .stream import synthetic_queries
from .traces import read_dlrm_trace

__all__ = ["BlockLoad", "Criteo", "HistogramLocality", "MovieTweetings", "QueryBatch", "StackDistance",
           "read_block_trace", "read_dlrm_trace", "read_histograms", "synthetic_queries"]
