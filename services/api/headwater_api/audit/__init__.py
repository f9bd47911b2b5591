"""The audit log of an organization: who did what, and who was refused."""
