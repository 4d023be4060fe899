"""A local RDS Data API on MariaDB: what the program of local/servers/data_api.py does.

It is at least as strict as the service for Aurora MySQL Serverless v2 and provisioned clusters.
Where AWS's documentation is silent or contradicts itself, it does what is hardest for a client, and
a comment names the source. "User guide" below is the Amazon Aurora User Guide,
https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/, by the name of the page.
"""
