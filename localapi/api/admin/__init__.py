"""Endpoints for operators: status, health, metrics and actions."""
