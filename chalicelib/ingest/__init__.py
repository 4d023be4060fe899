"""A CSV file in the bucket becomes rows of a table, exactly once. What other packages may use:

has_uploads, uploads_in, Upload, OWN_FOLDERS   what an event of S3 says
chalicelib.ingest.service.Ingest               deals with one upload; import it when a file comes

`Ingest` is not here: what it needs (csv, boto3) would make every cold start of a reader slower.
"""

from chalicelib.ingest.events import OWN_FOLDERS, Upload, has_uploads, uploads_in

__all__ = ["OWN_FOLDERS", "Upload", "has_uploads", "uploads_in"]
