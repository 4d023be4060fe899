"""The Python packages that we install and ship: their lock, known holes, licences.

pyproject.toml names what we use, in groups. The lock is in the files requirements*.txt: exact
versions of all that these need, with the hash of each file.
"""
