"""The queue of jobs: tables, leases, dispatcher."""
