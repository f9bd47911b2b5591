"""The types of data sources that this deployment knows."""
