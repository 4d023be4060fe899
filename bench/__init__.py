"""What the service costs (`make bench`), and whether one keeps its contract (`make grade`).

`python -m bench` measures on servers of its own:
    flows.py           what is timed
    contenders.py      who is timed: ours, and what it is compared with:
    raw.py             the raw drivers
    dogpile.py         dogpile.cache
    template.py        the manner of the course template, in two forms
    lineup.py          who is timed against whom
    measure.py         the interleaved run that times them
    http.py            the same over HTTP: one kept connection, and many threads
    headers.py         what the headers of a read cost
    round_trips.py     round trips of each flow, counted on the wire
    cold_start.py      import times and connection round trips of a fresh process
    load.py            files loaded, against the database's own client (python -m bench.load)
    s3.py              the S3 they come from
    report.py          tables; progress.py: what a long run is at
    targets.py         what the figures should be
    servers.py         the servers of a run; cluster.py: a Redis Cluster
    events.py          the event of an HTTP request
    delay_proxy.py     a network that is a known time away; delay_relay.py: its process
    counting_proxy.py  round trips of a connection
`python -m grader URL` plays the course's graders against any URL:
    grader.py          whether the rows are right
    caching.py         whether the cache loads lazily and is written through
    timings.py         how long requests take, and how much of that is HTTP
    service.py         how it is asked
    refusal.py         why it cannot be
"""
