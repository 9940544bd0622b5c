"""Rows that flash gave, kept in the controller's DRAM.

::

    Translator --look--> TagStore --found--> Translator --hit--> LineReader --source--> Merge
                           |  ^                                    | mem_read
                     verdict  admit, publish
                           v  |
    Merge --passing-----> LineWriter --mem_write

*What is kept.* A row is known by its place on flash (physical page, column, beats), not by its table: what a host changes
(tables, the map, a TRIM) leads to another place or to none, and never to a line with old content. A flash page changes in
two ways. PROGRAM makes an erased page, which reads as all ones, into another: so a row of all ones is not kept. ERASE: when
one has ended, nothing is found any more and nothing new is kept, rows that were to be kept and are on their way pass, and
then every line is dropped. The same happens after a reset, while the controller is disabled (a host may write to the DRAM
then), and after an error of the cache's DRAM.

*Who is kept.* Each line counts how often it was found, up to 7. A row that flash gave takes a line of its set that is empty
or whose count is 0; if there is none, every line of the set counts one down, and the row is not kept. So a row that is
asked for once does not drive out those that are asked for often (the summary of Misra and Gries, Science of Computer
Programming 2(2), 1982, for each set).

*Order.* A line is found from the cycle in which its tag is written, which comes after memory's answer to the write of its
row. A line is written to after its tag was taken away and every hit found before that has its row.

The writer holds nobody up: a row that passes while it has no room is not kept (``dropped``).
"""

from .row_cache import RowCache

__all__ = ["RowCache"]
