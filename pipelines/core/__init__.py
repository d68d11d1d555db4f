"""Stages, their steps, and how a run does them: nothing here knows what a label is."""
