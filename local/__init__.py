"""What runs on this machine and is never deployed: the commands of `make run`, `make up` and so on.

`commands` are what the Makefile calls, `demo` is `make demo`. `home` holds the servers of one
folder; `servers` says how each is started. `lambda_function` and `chalice_http` stand in for Lambda
and for API Gateway.
"""
