"""Several tokens of a row in one step: those that a grammar forces, and guesses that the model then checks."""
