"""Webhooks: who is told that a job has ended, what is said, how it is signed, and where each delivery stands.

In here: the rows, the statements of the deliverer, the body and its signature after Standard Webhooks
(https://www.standardwebhooks.com). Deliveries come into being in the database, by a trigger on the event that a job
writes as it ends (migrations/sql/0004.sql). Not in here: who sends them, which is the worker's side.
"""
