"""Restoring an archive: a tree of files, by many processes, on one machine or on a Ray cluster.

    source  ->  units of work  ->  executor: processes, or a cluster  ->  results, beside the destination
                     ^                            |
                     +--- driver and ledger <-----+

A unit is some pictures, a segment of a video, or the joining of a video's segments (`units.py`). What it makes is a
function of its files, the networks and the options alone, and appears in whole or not at all. The driver (`driver.py`)
is one process; what it knows is in a ledger (`ledger.py`). Whatever is killed, a node, a worker or the driver, costs
the units that were at work there, and the same command goes on.
"""
