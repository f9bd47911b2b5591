"""The API: who may ask for what, in JSON over HTTP.

It commits before it answers, never waits for Redis, never talks to a customer's system, and cannot open a credential.
"""
