"""Engines that turn texts into numbers: embeddings, and scores of documents. Nothing here knows HTTP."""
