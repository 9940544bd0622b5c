"""Block I/O: what executes READ, WRITE, FLUSH and dataset management commands, as components joined by streams.

A command goes through :class:`.intake.Intake`, which leads it to the half that executes it and walks its PRP list there, so
that no command ever waits in the list of another. Reads and writes share that walk and the channels' command ports, nothing
else: buffers, memory ports, translation and completions are of each half alone::

    read_cmd --+                +--> ReadIssue --(blank or broken page)----------------------+
    write_cmd -+-> Intake ------+       |  ^ tag, open                                       v
    trim_cmd --+   (PRP walk)   |       |  +---- ReadLedger <--retire-- ReadSender <--page-- Landing <-- flash_data
                                |       |             |                    |                  (page slots)
                                |       v             v                    v
                                |    FlashOrders   completion          host_write
                                |       ^     `--> flash_cmd
                                |       |
                                +--> WriteControl: completion, FLUSH
                                |    WriteFetch --page--> Programmer --programmed--> Mapper <-- flash_done
                                |        |                    `--job--> PageFeeders --> flash_in
                                |     host_read
                                +--> Trimmer (RangeList), beside later commands; it shares the map's ``update`` with Mapper

*Reads.* Up to host.block_reads pages are in flight, of as many commands or fewer; each has a tag, and a command goes by
that of its first page. A page takes a slot of the read buffer (host.read_slots) only when its channel is about to send it,
so a few slots do for many pages; it goes to the host as soon as it is there, to its own pieces of host memory, which are
stored by tag. Commands end in any order.

*Writes.* One command at a time, in order, its pages in parallel, each in a slot of the write buffer (host.page_slots). A
page is mapped once it is programmed, in page order: a logical block is never torn, whatever is read meanwhile, because no
page that is or was mapped is written again.

Why it can't deadlock. Every wait below is for something further down, and the last ones end on their own.

1. Completions, host reads and writes, translations and updates are answered by others, which wait for nothing here. The host
   is asked only for what there is room for: a slot is claimed before a page of a WRITE is fetched.
2. The ledger takes a retirement when the completion before it is taken (1).
3. The sender waits for host writes (1) and the ledger (2). So every slot of the read buffer that holds a page becomes free.
4. A channel is told that there is room (``room``) only with a slot set aside, so a page that started to come is taken at one
   beat a cycle: reads never stretch a channel's bus. It is a die that waits for room (3), not the bus: lookups go on.
5. So every read command that a channel holds ends, and every tag comes back but those of pages not yet sent to a channel.
   These are of one command alone, which holds two at most: hence block_reads >= 2.
6. A die ends what it does; a PROGRAM waits for its data, which are in the write buffer before it is sent, and for those
   of programs sent to its channel before it: the feeder of each channel sends them in that order, waiting for nothing but
   its turn at the buffer. So a channel's queue of commands always empties (4), and with it FlashOrders.
7. A page of a WRITE waits for the log (``allocate``: it is offered, full, or stalled), the channels (6) and the map (1):
   its slot becomes free, and its command ends.
8. The intake waits for a tag (5), for the ledger (2), or for the host's PRP list; a WRITE is not taken in before the one
   before it ended, and its list always has room; a second list of ranges not while one is unmapped: neither keeps a READ
   waiting.
"""
