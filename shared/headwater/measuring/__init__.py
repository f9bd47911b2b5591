"""What monitoring reads of a deployment: gauges of what is, tallies of what has ended. All of it comes from Postgres.

The scheduler measures, the API shows. Sums over all organizations that name none belong here; a count that lives in a
process does not.
"""
