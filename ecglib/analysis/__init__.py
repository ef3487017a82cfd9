"""Predictions → conclusion: inference, subgroups, tables, saliency and its checks."""
