"""The job engine: kinds, rows, statements, lifecycle, outcomes, the doorbell.

A job's state is changed by `lifecycle` and nowhere else. Not in here: what a job does (the worker's handlers), or
how a client asks for it (the API's routes).
"""
