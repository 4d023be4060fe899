"""A history checker: what clients saw while servers failed, held against what was committed.

    worker      processes that read, replace, insert and delete a few rows through the service
    nemesis     kills, stops, empties and cuts off servers, connections and those processes
    standbys    a second server of each kind, for its switchovers and failovers
    traps       what the nemesis does to a COMMIT, a fence or a publish on its way
    moments     where in a request it lets a process die or sleep
    bucket      a folder of uploaded files in place of S3
    records     what each process saw, with start and end, in files
    ledger      what was committed, in which order, as the database itself noted it
    checker     the two against each other
    counters    the same for increments
    round       all of it once, from empty servers to a report
    alternatives, compare   the same faults on what people use today

`python -m tests.history --minutes 10` runs rounds one after the other; `test_history.py` one.
"""
