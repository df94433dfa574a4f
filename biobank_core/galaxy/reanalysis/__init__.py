"""Reanalysis campaigns: plan, run, status, report."""
