"""A model of the cache protocol: tries every order of its steps, with every fault at every moment.

    writers   the steps of a write
    readers   the steps of a cached read
    redis     what each command does to the one entry
    faults    crashes, flushes, failovers, lost messages, time that passes
    state     what a state consists of
    worlds    who writes and reads, and which faults there are
    search    reaches every state, and shows the shortest way to a stale read
    counters  a model of its own: write-behind counters, and the runs that add them to a row

`python -m tests.model` searches every world. docs/cache.md says what was found, and what the model
leaves out.
"""
