"""Webhooks and what became of their deliveries. Sending them is the worker's side's: nothing in here can sign."""
