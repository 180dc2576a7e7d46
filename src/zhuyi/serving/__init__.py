"""Runs put to work for others: HTTP, batches across clients, the page."""
