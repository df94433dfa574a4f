"""Answers as tables, JSON and pictures. Inert: no script runs, no cell starts a formula."""
