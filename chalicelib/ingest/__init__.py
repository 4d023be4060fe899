"""A CSV file in the bucket becomes rows of a table, exactly once. What other packages may use:

has_uploads, uploads_in, Upload, OWN_FOLDERS   what an event of S3 says
Bucket, ANY_FOLDER                             writes and reads objects, and where it may write
chalicelib.ingest.service.Ingest               loads one upload; import it when a file comes

`Ingest` is not imported here, because it needs csv and boto3. They would make every cold start
slower, also for a container that only reads.
"""

from chalicelib.ingest.bucket import ANY_FOLDER, Bucket
from chalicelib.ingest.events import OWN_FOLDERS, Upload, has_uploads, uploads_in

__all__ = ["ANY_FOLDER", "OWN_FOLDERS", "Bucket", "Upload", "has_uploads", "uploads_in"]
