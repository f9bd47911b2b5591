"""Who may do what: organizations, members, API keys, roles and their permissions.

Not in here: HTTP headers, and the objects that permissions are about.
"""
