"""Scores of a model's answers, by known libraries."""
