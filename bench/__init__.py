"""What the service costs. `make bench` runs `python -m bench`, then `python -m bench.ingest`.

Each starts servers of its own. `candidates` are timed on the `workloads` by what is in
`measurements`; `thresholds` says what the figures should be. `servers` and `proxies` are what a run
needs.
"""
