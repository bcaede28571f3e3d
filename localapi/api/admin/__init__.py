"""Endpoints for whoever runs the server: status, health, metrics and actions."""
