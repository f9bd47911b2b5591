"""Projects: folders of data sources."""
