"""Speech for every dialect: from a neutral request to the pieces of a file, with times, a cache and notes."""
