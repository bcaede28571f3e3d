"""Preparation of text for speech. This room knows nothing of HTTP, the manifest or engines.

The order is: `clean` unspeakable characters, make markup `speakable`, apply the user's `lexicon`, split into
`sentences`. Numbers, dates and abbreviations are left to the engines, which know how to read them in their language.
"""
