"""Who may ask: the caller, the organization, its members and API keys."""
