"""Runs: the command line, the Prefect flow and the server it needs.

The only package that imports Prefect. Nothing heavy is imported here, nor by `flows.cli`.
"""
