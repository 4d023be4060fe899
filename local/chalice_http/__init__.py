"""The HTTP server of `chalice local`, in place of Chalice's own.

Chalice's waits 40 ms for each answer on a kept connection, queues 5 clients, and reads no chunked
body.
"""
