"""`make grade URL=…`: does what the course's graders do, against any URL, and says what passed.

It asks whether the rows are right, whether the cache loads lazily and is written through, and how
long requests take. It knows the service by HTTP alone and imports nothing of it.
"""
