"""Data sources: registering, reading, changing and deleting them, and their history.

Not in here: their credentials (`credentials`), their jobs (`jobs`) and what these bring in (`catalogue`).
"""
