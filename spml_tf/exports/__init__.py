"""Exports of a finished run: a file for each format, its checks, decisions and model card."""
