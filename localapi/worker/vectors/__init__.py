"""Engines that turn texts into numbers: embeddings, and scores of documents. They know nothing of HTTP."""
