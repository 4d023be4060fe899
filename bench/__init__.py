"""What the service costs (`make bench`), and whether one keeps its contract (`make grade`).

`python -m bench` measures on servers of its own:
    measure.py         the flows, and the interleaved run that times them
    contenders.py      who is timed: ours, and the raw drivers
    template.py        the baseline in the manner of the course template, in two forms
    events.py          the event of an HTTP request
    cold_start.py      import times and connection round trips of a fresh process
    report.py          tables and targets
    delay_proxy.py     a network that is a known time away
    counting_proxy.py  round trips, counted on the wire
`python -m bench.grade URL` plays the course grader against any URL:
    grader.py          what is checked
    service.py         how it is asked
"""
