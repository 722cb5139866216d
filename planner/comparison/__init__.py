"""Runs beside one another: tables, figures, pages."""
