"""`make demo`: herocache beside a service that caches the usual way, while Redis is killed."""
