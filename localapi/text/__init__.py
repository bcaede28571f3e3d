"""What text becomes before an engine says it. Knows text only: nothing of HTTP, of the manifest, or of engines.

The order in which it makes sense: `clean` what nobody can say, make markup `speakable`, put in what the user's
`lexicon` says, cut into `sentences`. Numbers, dates and abbreviations are left to the engines, which know how their
language reads them.
"""
