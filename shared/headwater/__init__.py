"""Headwater's domain: what a data source, a job, a credential is, and the rules that hold for them.

In here: rows, statements, rules, sealing. Not in here: HTTP, Celery, SDKs of
customers' systems, anything that talks to a customer's host.
"""

__version__ = "0.1.0"
